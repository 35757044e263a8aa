/*
 * The keeper: one thread per sandbox that looks after what runs over a link which may break: outputs (output.c) and
 * requests to cancel (cancel.c). The thread starts when the first of them
 * comes and ends with the sandbox; the memory goes with the last of them.
 *
 * Owns its thread, the lock and the list. The lock covers the list and the fields of each kept thing that its room says.
 * Order of locks: keeper, then a call's.
 */
#ifndef SBX_KEEPER_H
#define SBX_KEEPER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "sandbox.h"

struct keeper {
	pthread_mutex_t lock;
	pthread_cond_t wake; /* CLOCK_MONOTONIC; broadcast when something changed */
	struct sandbox *sb;  /* borrowed: the keeper's thread ends before it */
	bool stopping;       /* under the lock: everything is to end now */

	/* keeper.c's own, under the lock */
	pthread_t thread;
	bool running;
	unsigned refs;
	struct kept *items;
};

/* The first member of what is kept. */
struct kept {
	struct kept *next, *prev;
	struct keeper *keeper;
	bool finished; /* under the lock: not to be tended any more */
	/*
	 * Called by the keeper with its lock held. True: the lock was let go meanwhile (the thing may be gone). False: nothing is to be done
	 * before *next (lowered with keeper_sooner) or the next broadcast.
	 */
	bool (*tend)(struct kept *item, int64_t now, int64_t *next);
};

/* Puts item into the list of sb's keeper, and makes that and its thread if need be. */
int keeper_add(struct sandbox *sb, struct kept *item);
/* Takes it out; the lock is not held. The keeper itself may go with it. */
void keeper_remove(struct kept *item);
/* Is the caller the keeper's thread? The lock is held. */
bool keeper_is_self(const struct keeper *k);

static inline void keeper_sooner(int64_t *next, int64_t at)
{
	if (*next < 0 || at < *next)
		*next = at;
}

#endif
