/*
 * A run: one command executed in a sandbox, seen from here. Owns the stream of its output, the local spool that keeps it, and
 * the way to end it. The stream may break and is taken up again at the next byte; a run's end is known only
 * from the sandbox (exit code) or is `unknown`.
 *
 * Thread-safe, reference counted. Numbers are per sandbox, from 1, in the order of run_new.
 */
#ifndef SBX_RUN_H
#define SBX_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "call.h"
#include "sandbox.h"
#include "spool.h"

struct run;

struct run_spec {
	const char *command; /* a script; size bytes (it may be long; no NUL) */
	size_t size;
	const char *cwd;        /* NULL: /workspace, or where the session is */
	const char *const *env; /* KEY=VALUE, NULL-terminated; NULL: none */
	const void *input;      /* stdin; NULL: empty */
	size_t input_size;
	int64_t timeout_ms;  /* <=0: none */
	const char *session; /* NULL: of none; else it runs in the shell of that session, in its turn */
};

/* The runs of one sandbox: numbering, the newest 16 and those in use. */
struct run_table;
int run_table_new(struct sandbox *sb, struct run_table **out);
/* Cancels what runs and forgets what has ended; it takes no new runs. */
void run_table_close(struct run_table *t);
void run_table_free(struct run_table *t);                         /* closes it */
struct run *run_table_find(struct run_table *t, uint64_t number); /* new reference or NULL */
struct run *run_table_last(
	struct run_table *t); /* newest with run_mark_begun; new reference or NULL */
void run_table_each(struct run_table *t, bool (*cb)(struct run *r, void *arg), void *arg);

/* Reserves the next number (for a conversation that tells it before the command). New reference. */
int run_new(struct run_table *t, struct run **out);
void run_mark_begun(struct run *r); /* from its first byte written on it is `last` */
struct run *run_get(struct run *r);
void run_put(struct run *r);

/* Starts the command and returns once the sandbox has accepted it. 0 or an errno with a fault; then exit is unknown only if it may have run. Once per run. Everything in spec is copied. */
int run_start(struct run *r, struct call *c, const struct run_spec *spec);
/* Waits for its end: 0, -EINTR (the run goes on), or the errno if it ended unknown (with the fault). */
int run_wait(struct run *r, struct call *c);
/* Kills its process group in the sandbox, TERM then KILL after 2 s; does not wait for the end. Works at any time (before the start is answered as well). */
void run_cancel(struct run *r);

enum run_state {
	RUN_RESERVED,
	RUN_RUNNING,
	RUN_ENDED,
	RUN_UNKNOWN, /* ended for us, its exit is not known */
	RUN_REFUSED  /* it never ran: no exit code is to be had */
};
enum run_state run_state(struct run *r);
/* It runs, has run or may have: there is output to be told, and an end to wait for. */
bool run_has_begun(struct run *r);
uint64_t run_number(const struct run *r);
/* Exit code 0…255 (128+N for signal N; 124 with *timed_out for a time-out). Valid in RUN_ENDED. */
int run_exit(struct run *r, bool *timed_out);
const char *run_command(struct run *r); /* borrowed; "" before the start */
void run_times(struct run *r, struct timespec *started,
	struct timespec *ended);            /* zero: not yet; CLOCK_REALTIME */
struct spool *run_spool(struct run *r); /* borrowed; ended when the run is */
/* The fault of an unknown end. */
void run_fault(struct run *r, struct fault *copy);

/* The directory where nameless files of output go. New, or NULL. */
char *run_spool_dir(void);

#endif
