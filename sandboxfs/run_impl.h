/*
 * Inside of runs and their table, for run.c and run_table.c alone.
 *
 * Order of locks: table, run, a call's.
 */
#ifndef SBX_RUN_IMPL_H
#define SBX_RUN_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "output.h"
#include "run.h"

struct run_table {
	pthread_mutex_t lock;
	unsigned refs;        /* under the lock: the owner's and each run's */
	struct run *newest;   /* under the lock: every run there is, in falling numbers */
	uint64_t last, begun; /* under the lock: numbers given out */
	bool closed;          /* under the lock: run_table_free was called */
	struct sandbox *sb;   /* borrowed */
	char *spool_dir;
	char *prefix; /* of the ids of our commands: no other mount's are the same */
};

struct run_waiter {
	struct run_waiter *next;
	struct call *call;
};

struct run {
	struct run *next, *prev; /* table's lock, as these: */
	unsigned refs;
	uint64_t begun; /* 0: not begun; else it grows with each run that began */
	bool kept;      /* the table holds a reference */

	uint64_t number;
	struct run_table *table;
	struct spool *spool;
	char *id;

	pthread_mutex_t lock;
	_Atomic int state; /* enum run_state; changes under lock */
	_Atomic bool over; /* nothing more will come; set under lock, before those who wait are woken */
	struct output *output; /* under lock */
	char *command;         /* under lock until it is set; then constant */
	bool starting, cancel; /* under lock */
	bool may_run;          /* under lock: in the sandbox, for all we know */
	bool timed_out;        /* under lock, as those below */
	int code;
	struct timespec started, ended;
	struct fault fault;
	struct run_waiter *waiters;
};

/* --- run_table.c --- */
void run_table_put(struct run_table *t);
/* Lets go of the oldest kept ones, if there are too many. No lock is held. */
void run_table_prune(struct run_table *t);

/* --- run.c --- */
/* Nobody refers to it any more, and it is out of the list. */
void run_free(struct run *r);
/*
 * The mount ends: what still runs is ended in the sandbox, which is given until until_ms (call_now_ms) to answer, and nobody
 * will hear of its end.
 */
void run_abandon(struct run *r, int64_t until_ms);

#endif
