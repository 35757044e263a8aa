/*
 * What is asked of `events`: its first line, and the request made of it. No state.
 */
#ifndef CTL_EVENTS_LINE_H
#define CTL_EVENTS_LINE_H

#include <stdbool.h>

#include "buf.h"
#include "call.h"

struct json_object;

struct events_request {
	struct json_object *body; /* of the route of changes */
	char *dir;                /* below the workspace; "" for all */
	bool asks;                /* since= was given: a version is to be told */
	char *since;              /* "": none to compare with */
};

/* `[DIR] [include=G]... [exclude=G]... [recursive=no] [since=VERSION]`: 0 and *out filled, or an errno with a fault. n 0: all. */
int events_request_parse(struct call *c, const char *line, size_t n, struct events_request *out);
void events_request_release(struct events_request *q);
/* The body of watch/check for it: new; NULL: out of memory. */
struct json_object *events_request_check(const struct events_request *q);

#endif
