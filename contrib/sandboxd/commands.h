/*
 * The table of commands: ids, records and their bounds, and the reaper, the one thread that
 * waits for children (adopted orphans too).
 */
#ifndef SANDBOXD_COMMANDS_H
#define SANDBOXD_COMMANDS_H

#include "command.h"
#include "spawn.h"

int commands_new(struct server *server, struct commands **out);
/* Ends everything that was started: TERM, KILL after 1 s. Returns when nothing is left, or after 5 s more. */
void commands_stop(struct commands *t);
void commands_free(struct commands *t);

enum commands_exists {
	EXISTS_ATTACH, /* *out is the one that is there */
	EXISTS_REPLACE /* an ended one goes; -EBUSY if it runs */
};
/*
 * Starts a command, and waits until it runs. 0 and *out (new reference), or a negative errno: -ECANCELED a cancel came before it,
 * -ESHUTDOWN sandboxd is stopping, others are what failed. *attached: it was there.
 */
int commands_start(struct commands *t, const struct command_spec *spec, enum commands_exists how,
	struct command **out, bool *attached);
/* New reference or NULL. */
struct command *commands_find(struct commands *t, const char *id);
void commands_put(struct command *c);
/* Takes the record out of the table. 0, -ENOENT, -EBUSY. */
int commands_forget(struct commands *t, const char *id);
/* New references to all records, oldest first, in a new array. The count, or -ENOMEM. */
ssize_t commands_all(struct commands *t, struct command ***out);
/* A start that comes with this id within 60 s is refused. 0, or -ENOMEM. */
int commands_refuse(struct commands *t, const char *id);

/*
 * A program that is no command (the shell of a session): forked here, reaped here, owned by who embeds this.
 * The reaper calls `ending` while the number is still its own and `ended` when it is not, both with the lock held, then `release`
 * without it. None may block.
 */
struct child {
	/* Constant. */
	pthread_mutex_t *lock; /* covers the next three; the reaper reaps it with this lock held */
	void (*ending)(struct child *child);
	void (*ended)(struct child *child);
	void (*release)(struct child *child);

	pid_t pid; /* its own while !reaped */
	bool reaped;
	int wait_status;

	struct child *next; /* of the reaper */
};
/* 0, and *status for spawn_outcome; -ESHUTDOWN or another negative errno: neither callback comes. Without child->lock. */
int commands_fork_child(
	struct commands *t, struct child *child, const struct spawn *s, int *status);

/* For command.c: forks with the table locked and sets c->pid, so that the reaper finds the owner. */
int commands_fork(struct command *c, const struct spawn *s, int *status);
/* For command.c: its thread is over. */
void commands_thread_ended(struct command *c);

#endif
