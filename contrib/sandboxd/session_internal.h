/*
 * What session.c (the table, a session from outside) and session_queue.c (its commands and its shell) share.
 */
#ifndef SANDBOXD_SESSION_INTERNAL_H
#define SANDBOXD_SESSION_INTERNAL_H

#include <stdatomic.h>

#include "commands.h"
#include "proc.h"
#include "session.h"
#include "session_shell.h"

struct session {
	/* Constant. */
	atomic_uint references;
	struct server *server;
	char *id;
	int64_t timeout_ms;

	struct session *next; /* covered by the table's lock */

	pthread_mutex_t lock; /* covers the rest */
	pthread_cond_t changed;
	bool deleted;
	struct command *first, **last; /* by next_queued; the first one runs, or is about to */

	struct child shell; /* the newest */
	bool here;          /* it lives: neither reaped nor failed to start */
	bool killed;        /* and is about to die: nothing more is said to it */
	int words, answers; /* our ends of its descriptors 0 and 1; -1: none */
	struct shell_answers told;
	uint64_t number;         /* of the command that was handed over last */
	struct proc_name *older; /* children of the shell from before that */
	size_t older_count;
	bool asked;           /* the shell, for the end of that command, once more */
	int64_t nudged;       /* when it was seen to have read that; 0: not */
	int64_t interrupt_at; /* not before this again */
	struct proc_set left; /* what earlier shells left behind */

	bool ended; /* a shell was there and has ended */
	int exit_code;
	char *cwd;
	struct buf environment;
};

/* With the lock held. */
bool session_hears(
	struct session *s); /* reads what the shell has said; false: it has closed its end */
/* Where the shell is, into s->cwd. With the lock held. */
void session_note_place(struct session *s);
/*
 * Sends SIGINT to the group of the shell, which is here: to all at once, as a terminal does it. False: not now; it was not sent. With the lock
 * held.
 */
bool session_interrupt_shell(struct session *s);
/* Of a new session: there has been no shell yet. The reaper may still look at one that has ended when the next is forked. */
void session_no_shell(struct session *s);
/* Kills the shell alone; the next command waits for its death and has another. It is here. With the lock held. */
void session_kill_shell(struct session *s);
/* Kills the shell and all below it. With the lock held. */
void session_end_shell(struct session *s);

#endif
