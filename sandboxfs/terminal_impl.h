/* What terminal.c (life, output, readers) and terminal_type.c (what is typed) share. For no one else. */
#ifndef SBX_TERMINAL_IMPL_H
#define SBX_TERMINAL_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "terminal.h"

struct output;
struct typist;

struct terminal {
	atomic_uint refs;
	char *id;
	void (*ended_hook)(void *arg, struct terminal *t);
	void *hook_arg;

	pthread_mutex_t lock; /* covers all below */
	struct sandbox *sb;   /* NULL after the stop */
	struct output *output;
	bool paused;
	unsigned resuming; /* who resumes the output at this moment, without the lock */
	pthread_cond_t idle;
	unsigned columns, rows;
	char *ring;
	uint64_t end; /* bytes that came */
	struct terminal_reader *readers;
	bool over, settled; /* its end has come; may be told */
	int err, code;

	/* terminal_type.c's; synced and typed belong to whose turn it is, without the lock */
	bool typing, synced;
	uint64_t typed;
	struct typist *typists;
};

/* terminal.c: the sandbox of one whose program runs, without the lock; or NULL and *err, with a fault: it has ended. */
struct sandbox *terminal_living(struct terminal *t, struct call *c, int *err);

#endif
