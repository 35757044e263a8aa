/*
 * Bringing our own server into a sandbox that has none: the static sandboxd (contrib/helper) is put there once, verified by its hash, and is
 * started by its attach mode, which a terminal of the sandbox runs.
 *
 * Knows nothing of how a kind of server runs a script and takes a file: its driver gives that as a carrier. Holds no state but the
 * programs, which a driver keeps for all its sandboxes.
 */
#ifndef SBX_CARRY_H
#define SBX_CARRY_H

#include "buf.h"
#include "call.h"

/* The programs for all machines, each read when it is first needed; what could not be read is read again. Any thread. */
struct programs;
int programs_new(struct programs **out);
void programs_free(struct programs *p); /* NULL is allowed */

struct carrier {
	/*
	 * Runs script with sh in the sandbox: 0, its output and its exit code; or an error with a fault, when its end is not known. No longer
	 * than until deadline (call_now_ms).
	 */
	int (*run)(void *arg, struct call *c, int64_t deadline, const char *script, struct buf *out,
		int *status);
	/* Puts bytes into a new file of the sandbox: 0 and *path new (plain ASCII, no quotes); or an error with a fault. Likewise. */
	int (*put)(
		void *arg, struct call *c, int64_t deadline, const void *p, size_t size, char **path);
	void *arg;
	struct programs *programs; /* borrowed */
};

/*
 * Sees to it that the program is there, and asks the least where it is. 0 and *attach new: the path to run; else an error with a
 * fault: -ENOTSUP when no program of ours runs there.
 */
int carry_in(const struct carrier *k, struct call *c, int64_t deadline, char **attach);

#endif
