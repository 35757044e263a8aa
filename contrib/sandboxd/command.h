/*
 * One command: its processes, its output and its end. Owns the thread that reads its pipes, keeps its time-out and kills
 * it; the spool of its output; its record. Reference counted; thread-safe.
 *
 * A command has ended when its leader has, and its pipes have closed or said nothing more for 200 ms. Its thread
 * goes on after that for as long as somebody holds the pipes, so that no background child is killed by a closed pipe.
 */
#ifndef SANDBOXD_COMMAND_H
#define SANDBOXD_COMMAND_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "buf.h"
#include "proc.h"
#include "server.h"
#include "spool.h"

struct json_object;
struct session;

enum { COMMAND_SCRIPT_MAX = 16 << 20 };

struct command_spec {
	const char *id; /* NULL: "proc_<ms>_<6 letters>" is made */
	const char *text;
	size_t size;             /* of text; no NUL inside */
	const char *cwd;         /* NULL: the workspace; relative: from there */
	struct json_object *env; /* borrowed; NULL: none */
	const void *input;       /* stdin; size 0: /dev/null */
	size_t input_size;
	int input_fd;       /* >0: this becomes stdin instead; taken, also on failure */
	int64_t timeout_ms; /* <0: none */
	bool timeout_note;  /* say so at the end of stderr */
	bool no_timeout;    /* not even the session's */
	bool listed;
	struct session
		*session;  /* borrowed; NULL: none. It ends with this session, begins where that is */
	bool in_shell; /* and runs in its shell, in its turn (session.h) */
	unsigned columns, rows; /* not 0: it has a terminal of this size (pty.h) */
};

struct command {
	/* Constant after the start. */
	atomic_uint references;
	struct server *server;
	char *id, *text, *cwd;
	char *given_cwd; /* as it was given, if own_cwd */
	size_t text_size;
	struct json_object *env;
	struct buf environment; /* NAME=VALUE, each with its NUL */
	int64_t timeout_ms;
	bool timeout_note, listed;
	char *script; /* name of the private file it runs from, or NULL */
	struct session *session;
	bool in_shell, own_cwd;      /* own_cwd: it was given one, rather than where the session is */
	bool checked;                /* its shell looks at the text before it runs it */
	struct command *next_queued; /* covered by the session's lock */
	unsigned columns, rows;
	int terminal; /* our end of it, -1: none. Closed with the record */
	struct spool *spool;
	int in, wake; /* wake: an eventfd that makes the thread look again */

	/* Covered by the table's lock. */
	struct command *next;
	struct command *next_running;
	bool in_table;

	pthread_mutex_t lock; /* covers the rest */
	pthread_cond_t changed;
	bool started; /* the outcome of the start is known: start_error, or it runs */
	int start_error;
	pid_t pid;
	bool leader_reaped; /* from now on the number may be another's */
	int wait_status;
	bool ended;
	uint64_t end_number; /* the order of ends */
	int exit_code;
	bool timed_out, cancelled, killed;
	bool session_lost; /* the shell of its session was killed under it, or could not be had */
	int *watchers;     /* eventfds that hear of output and of the end */
	size_t watcher_count;
	uint64_t typed;       /* bytes of input that the terminal took */
	int signalled;        /* the newest signal sent by request, 0: none */
	uint64_t end_size[3]; /* sizes of the three views at the end */
	struct timespec begin_time, end_time;
	uint64_t sync_wanted, sync_done; /* numbers of command_sync */
	int64_t cancel_grace;            /* >=0: a request to end it, not yet seen by its thread */
	bool killing;                    /* its processes are being ended */
	struct proc_set held;
};

/* The status word of process records. */
const char *command_status(struct command *c);

/* Makes the record; 0 or a negative errno (-EINVAL: a NUL in the environment, -E2BIG: the script). */
int command_new(struct server *server, const struct command_spec *spec, struct command **out);
void command_free(struct command *c);
/* Its leader's number; 0 while it waits for its turn. */
pid_t command_pid(struct command *c);
/* An eventfd that is written to whenever there is output, and at the end. 0 or -ENOMEM. */
int command_watch(struct command *c, int eventfd);
void command_unwatch(struct command *c, int eventfd);
/* For session.c: makes its thread look again; the thread's waiting for that; was it asked to end? */
void command_wake(struct command *c);
void command_sleep(struct command *c);
bool command_cancel_asked(struct command *c);

/* Starts its thread, which starts it. Once. The thread gives up its reference with commands_put. */
int command_launch(struct command *c);
/* Waits for the outcome of the start: 0 or a negative errno. */
int command_wait_started(struct command *c);

/* Called by the reaper with c->lock held, when the leader has just been reaped. */
void command_leader_ended(struct command *c, int wait_status);

/* Sends sig to all its processes. 0, or -ESRCH: it has ended. */
int command_signal(struct command *c, int sig);
/* TERM, and KILL to what is left after grace_ms. Returns at once. 0, or -ESRCH. */
int command_cancel(struct command *c, int64_t grace_ms);
/* Waits until it has ended and nothing of it is being killed any more, or the deadline (ms). True: so it is. */
bool command_wait_dead(struct command *c, int64_t deadline_ms);

/* Waits until the view is longer than off, or it has ended, or the deadline. 1: more, 0: ended and no more, -ETIMEDOUT. */
int command_wait_output(struct command *c, enum spool_view view, uint64_t off, int64_t deadline_ms);
/* Waits until all that its processes have written by now is in the spool. */
void command_sync(struct command *c);
bool command_ended(struct command *c);
/* Does it run, or did it? False while its start is not decided and when that failed. */
bool command_has_run(struct command *c);

/* Appends what is kept of a view up to its end (UINT64_MAX: all that is there). 0 or a negative errno. */
int command_output(struct command *c, enum spool_view view, uint64_t end, struct buf *out);

#endif
