/*
 * Starting one program: the only fork of sandboxd. The child leads a session and a process group of its own and has
 * descriptors 0, 1 and 2 only, default signals, umask 022 and the limits of commands.
 */
#ifndef SANDBOXD_SPAWN_H
#define SANDBOXD_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

struct spawn {
	const char *const *argv; /* argv[0] is an absolute path, or one that is relative to cwd */
	const char *const *env;
	const char *cwd;
	int in, out, err;   /* borrowed */
	uint64_t processes; /* limit; 0: none */
	struct rlimit files;
	bool terminal; /* in is a terminal: it becomes the controlling one */
	bool adopts;   /* orphans below it become its children, not ours */
};

/*
 * Forks; *status then reads as nothing once the program runs, or as the
 * negative errno why not. Only this part needs the caller's lock. 0 with *pid, or a negative errno.
 */
int spawn_fork(const struct spawn *s, pid_t *pid, int *status);
/*
 * Waits for the outcome and closes status: 0; a negative errno if the child could not be prepared (cwd, limits); a positive errno if
 * argv[0] could not be executed. In both cases the child ends by itself with 127.
 */
int spawn_outcome(int status);

#endif
