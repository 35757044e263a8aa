/*
 * What command.c, command_pump.c (the thread of a command) and command_start.c (how it begins) share.
 */
#ifndef SANDBOXD_COMMAND_PUMP_H
#define SANDBOXD_COMMAND_PUMP_H

#include "command.h"

enum { PUMP_CHUNK = 64 << 10 };

/* Of the command's thread alone. */
struct pump {
	struct command *c;
	int fd[2]; /* stdout, stderr; -1: closed */
	bool leader_seen;
	int64_t quiet_at;
	int64_t timeout_at;   /* -1: none */
	int64_t kill_begun;   /* when it was asked to end */
	int64_t kill_at;      /* when TERM becomes KILL; -1: not ending anything */
	int64_t kill_give_up; /* -1: KILL was not sent yet */

	/* Of one that runs in the shell of a session. */
	char *work;     /* the directory of its text and pipes */
	int hold[2];    /* keep its pipes open until the shell has told the end; -1: not needed */
	int report;     /* readable when the shell tells something; -1: nothing to wait for */
	bool joined;    /* it is in the queue */
	bool was_asked; /* TERM was sent */
	int failed;     /* not 0: it never ran, and this is its status */
	bool failed_lost;
	int64_t told_at; /* when the shell was interrupted first; -1: it was not yet */
	int64_t interrupt_at, nudge_at;

	char chunk[PUMP_CHUNK];
};

/* Starts it. 0 or a negative errno. One in a session always starts: what goes wrong later is its end. */
int pump_begin(struct pump *p);
/* With c->lock held: sends sig to all its processes. False: as of session_signal. */
bool command_signal_all(struct command *c, struct proc_set *set, int sig);

#endif
