/*
 * The bearer token of a server: from the file of -o token_file=, else $SANDBOX_API_KEY, else ~/.config/sandboxfs/token. Never from a
 * command line. It is in no message.
 */
#ifndef SBX_TOKEN_H
#define SBX_TOKEN_H

#include <stdbool.h>

#include "call.h"
#include "options.h"

/*
 * 0 and *out new, or NULL where none is given. others: also from where it is not named for this server (the environment, the
 * configuration). An error with a fault. Clear it before it is freed (token_free). Once there is one, the program leaves no core file.
 */
int token_read(const struct options *o, struct call *c, bool others, char **out);
void token_free(char *token); /* NULL is allowed */

#endif
