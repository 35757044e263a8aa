/*
 * Inside of struct op, for the files of the front alone (front*.c, fuse*.c, op.c, loop.c).
 */
#ifndef SBX_OP_IMPL_H
#define SBX_OP_IMPL_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

#include "front.h"
#include "op.h"

struct op {
	fuse_req_t req;
	struct front *front;
	struct call call;
	uint64_t number; /* key in the table */
	pid_t pid;
	bool patient;     /* a caught SIGALRM does not cancel it */
	_Atomic int refs; /* the one who answers, and whoever cancels at this moment */
	/* under call.lock */
	void (*parked)(struct op *op, void *arg);
	void *parked_arg;
	/* under the table's lock */
	struct op *next, *prev;
	bool interrupted; /* the kernel sent an interrupt: watch the caller's pending signals */
};

struct op_table; /* ops in progress, and the thread that looks at interrupted ones */
int op_table_new(struct op_table **out);
void op_table_free(struct op_table *t);
void op_table_cancel_all(struct op_table *t);
uint64_t op_table_active(struct op_table *t, uint64_t *total);

/* NULL: out of memory, the request has been answered with ENOMEM. */
struct op *op_new(
	struct front *f, struct op_table *t, fuse_req_t req, bool patient, bool never_waits);
struct op_table *front_ops(struct front *f);
/* The answer is about to be given: takes the op out of the table and frees it. The request stays with the caller. */
fuse_req_t op_finish(struct op *op);

/* A thread-per-waiting-request loop over a session (loop.c). */
struct loop;
int loop_new(struct fuse_session *se, unsigned max_threads, struct loop **out);
/* Returns when the session has ended and all its threads are gone; ended() is called once before the wait for them. */
int loop_run(struct loop *l, void (*ended)(void *arg), void *arg);
void loop_stop(struct loop *l); /* makes loop_run return; any thread */
void loop_free(struct loop *l);
unsigned loop_threads(struct loop *l);
/* Asked by a handler: does no other thread read on while this one works? Then it must not wait for anything. */
bool loop_is_alone(struct loop *l);

#endif
