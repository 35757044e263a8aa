/*
 * Environments of programs: NAME=VALUE strings, each with its NUL, in one buffer. Pure functions.
 */
#ifndef SANDBOXD_ENVIRONMENT_H
#define SANDBOXD_ENVIRONMENT_H

#include <stdbool.h>

#include "buf.h"
#include "server.h"

struct json_object;

/*
 * Appends to an empty buffer what every program gets, or what base holds (not NULL, not empty) instead, with the members of env put over it (null: left as it
 * was) and PWD. 0, -ENOMEM, or -EINVAL: a value holds a NUL.
 */
int environment_make(struct buf *out, const struct server *server, const struct buf *base,
	const char *cwd, struct json_object *env);
/* Adds a variable if there is none of that name. 0 or -ENOMEM. */
int environment_default(struct buf *b, const char *name, const char *value);
/* Are all names of env such that a shell can assign them? NULL: yes. */
bool environment_names_are_good(struct json_object *env);

#endif
