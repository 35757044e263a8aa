/*
 * The watches that stay between two calls of watch/check, found again by what they watch. Owns
 * them, with a lock of its own.
 */
#ifndef SANDBOXD_CHECKS_H
#define SANDBOXD_CHECKS_H

#include <stdbool.h>

#include "watcher.h"

struct server;
struct check_table;

struct check {
	const char *status; /* unchanged, changed, resync */
	const char *reason; /* of resync: expired, restarted; else NULL */
	char *version;      /* new */
};

int checks_new(struct server *server, struct check_table **out);
void checks_free(struct check_table *t);
/* A new "watch-N-MS" string, or NULL. */
char *checks_id(struct check_table *t);
bool checks_is_version(const char *s);
/* Takes the content of spec. 0 and *out, or a negative errno. */
int checks_look(
	struct check_table *t, struct watch_spec *spec, const char *since, struct check *out);

#endif
