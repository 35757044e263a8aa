/*
 * Doubles for the unit tests of the control tree: ops that a test can look at, a sandbox that counts what it is asked, runs
 * whose output and end the test decides.
 */
#ifndef CTL_FAKES_H
#define CTL_FAKES_H

#include "node.h"
#include "op.h"
#include "run.h"
#include "sandbox.h"

/* --- ops --- */
struct op *fake_op(pid_t pid); /* pid 0: the test's own thread */
void fake_op_free(struct op *op);
void fake_op_cancel(struct op *op); /* as an interrupt that means it */
/* Waits until it is answered, up to 10 s; false: it is not. */
bool fake_op_answered(struct op *op);
bool fake_op_is_parked(struct op *op);
int fake_op_err(struct op *op);
const char *fake_op_data(struct op *op, size_t *n);

struct op_poll *fake_poll(void);
int fake_poll_notified(void); /* how many so far */
int fake_poll_alive(void);    /* made and not freed */

struct node_filler {
	char *names[256];
	unsigned count, room;
	bool with_attributes;
};
void fake_filler_clear(struct node_filler *f);

/* --- the sandbox --- */
struct fake_world {
	struct server *server;
	struct sandbox *sandbox;
};
void fake_world_make(struct fake_world *w);
void fake_world_free(struct fake_world *w);
extern _Atomic int fake_ready_err, fake_barrier_err, fake_api_err;
extern _Atomic int fake_readies, fake_barriers, fake_invalidations, fake_destroys, fake_retries;
extern char fake_sync[256];
extern char fake_api_last[256];
extern struct options fake_options;

/* --- runs --- */
/* The run that was started last; waits for it up to 10 s. NULL: none. Borrowed. */
struct run *fake_started(unsigned nth);
/* The newest that was begun. Borrowed. */
struct run *fake_last_run(void);
const char *fake_run_cwd(struct run *r);
const char *fake_run_env(struct run *r, unsigned i);
const void *fake_run_input(struct run *r, size_t *n);
int64_t fake_run_timeout_ms(struct run *r);
void fake_run_print(struct run *r, int stream, const char *text, size_t n);
void fake_run_end(struct run *r, int code, bool timed_out);
void fake_run_lose(struct run *r, int err);
bool fake_run_cancelled(struct run *r);
bool fake_run_over(struct run *r); /* ended, or never to be started */
extern _Atomic int fake_start_err; /* what the next run_start fails with */

#endif
