/*
 * Sessions: a shell each, which keeps directory, variables, functions, options and umask from command to
 * command. Owns the table of sessions, their queues and the life of their shells; session_shell.c knows how to talk to one.
 *
 * The commands of a session run in its shell, one after the other in the order of their arrival; sessions run side by side.
 * A shell is started by the first command that needs it. When it ends (`exit 3`, `exec`, a signal), the next command
 * starts another with the directory and the exported variables that were last known. What runs below a shell stays below it (its
 * orphans are its children), so that the end of a session ends everything that it started.
 *
 * Reference counted, thread-safe. Lock order: the table of commands, a command, a session. The table of sessions has a lock of
 * its own, under which only references are taken.
 */
#ifndef SANDBOXD_SESSION_H
#define SANDBOXD_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "server.h"

struct command;
struct json_object;
struct proc_set;
struct sessions;
struct session;

struct session_spec {
	const char *id;
	const char *cwd;         /* NULL: the workspace. One that is not there: HOME */
	struct json_object *env; /* borrowed; NULL: none */
	int64_t timeout_ms;      /* of commands that bring none; <0: none */
};

int sessions_new(struct server *server, struct sessions **out);
/* No shell is started any more, and those that live end. */
void sessions_stop(struct sessions *t);
void sessions_free(struct sessions *t);

/* New reference in *out. -EEXIST: there is one that is alive (one whose shell has ended is replaced). */
int sessions_create(struct sessions *t, const struct session_spec *spec, struct session **out);
/* The one of that name, made if there is none. New reference. */
int sessions_open(struct sessions *t, const char *id, struct session **out);
/* New reference or NULL. */
struct session *sessions_find(struct sessions *t, const char *id);
/* Kills everything that it started and forgets it. 0 or -ENOENT. */
int sessions_delete(struct sessions *t, const char *id);
/* An array of ids, oldest first. */
struct json_object *sessions_list(struct sessions *t);
struct session *session_get(struct session *s);
void session_put(struct session *s);

const char *session_id(const struct session *s);
int64_t session_timeout_ms(const struct session *s);
bool session_is_deleted(struct session *s);
/* Appends directory and variables (as environment.h has them) for what starts beside the shell. 0 or -ENOMEM. */
int session_place(struct session *s, struct buf *cwd, struct buf *env);

struct session_state {
	bool ended; /* its shell has; the next command starts another */
	int exit_code;
	pid_t pid;       /* 0: there is no shell just now */
	size_t commands; /* that run or wait */
	char *cwd;       /* new */
};
int session_state(struct session *s, struct session_state *out);
/* Ends the command that runs, not the shell. 0, or -ESRCH: none does. */
int session_interrupt(struct session *s);
/* Kills the shell, with the command that it runs. 0, or -ESRCH: there is none. */
int session_kill(struct session *s);

/* --- for command.c: a command that runs in the shell --- */

/* Queues it. Before its thread starts. */
void session_join(struct session *s, struct command *c);
/* Waits for its turn. 0; -ECANCELED: it was cancelled meanwhile; -ESHUTDOWN: the session is gone. */
int session_turn(struct session *s, struct command *c);
/* Takes it from the queue: the next one's turn has come. Once it has joined it must leave, also when it was never its turn. */
void session_leave(struct session *s, struct command *c);

/*
 * In its turn: has a shell run the text in the directory `work` (see session_shell.h), starting the shell if need be. 0, and *pid and *report, a
 * descriptor to poll: when it is readable, or c->wake was written to, session_look says more.
 */
int session_run(struct session *s, struct command *c, const char *work, pid_t *pid, int *report);
/* 1: it has ended with *status (of wait). 0: not yet; *report may have become -1. *lost: the shell was killed under it. */
int session_look(struct session *s, struct command *c, int *report, int *status, bool *lost);
/* Looks whether the shell has overlooked the end of the command, as interrupts can make it. Called about once a second. */
void session_nudge(struct session *s, struct command *c);
/*
 * Sends sig to the processes of the command (started since its beginning); with `shell` also SIGINT, or SIGKILL if sig is that, to the
 * shell: it drops what it was doing then. set NULL: only to the shell. False: the shell was not, or cannot be interrupted just now: then
 * nobody was, since it would go on with what follows its child; set holds who would have been.
 */
bool session_signal(
	struct session *s, struct command *c, struct proc_set *set, int sig, bool shell);

#endif
