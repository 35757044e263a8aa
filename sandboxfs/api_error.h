/*
 * The errors of the container API: code, HTTP status and text to errno and fault. One table (api_error.c); no state.
 */
#ifndef SBX_API_ERROR_H
#define SBX_API_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#include "call.h"

/* An answer with a status other than 200: returns the negative errno and fills the fault from the JSON error body, if it is one. */
int api_error(struct call *c, int status, const char *body, size_t size);
/* The text of a failed tool or call ("…: No such file or directory", "EISDIR: …") to a positive errno; EIO if it says nothing known. */
int api_errno_of_text(const char *text);
/*
 * Is this the answer of somebody on the way (a gateway, a Worker, a limiter of requests) rather than of the container's server, whose errors
 * have codes? Then another try may have the server's own. With 429 and 503 nothing was done; with others it may have been.
 */
bool api_error_is_passing(int status, const char *body, size_t size);

#endif
