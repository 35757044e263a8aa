/*
 * The child's side of the spawner: from fork to exec. Only spawner.c includes it.
 */
#ifndef SBX_SPAWNER_CHILD_H
#define SBX_SPAWNER_CHILD_H

#include <sys/types.h>

#include "spawner.h"

/* What a child that could not become the program writes to report. */
struct spawn_failure {
	int stage;
	int err; /* negative errno */
};

const char *spawn_stage(int stage); /* static text; 0: the fork itself */

/* In the child. err: its descriptor 2, -1: none; report: closed by the exec; program: who forked, by its number. */
void spawn_child(const struct spawn *w, int err, int report, pid_t program)
	__attribute__((noreturn));

#endif
