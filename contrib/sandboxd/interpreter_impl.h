/*
 * What interpreter.c (the table, a context's thread), interpreter_run.c (the queue, the reader's side) and executor.c (the process
 * and its channel, on the context's thread) share. For no one else.
 */
#ifndef SANDBOXD_INTERPRETER_IMPL_H
#define SANDBOXD_INTERPRETER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "command.h"
#include "interpreter.h"

struct result {
	uint64_t at; /* how much of the output came before */
	struct json_object *json;
};

struct run {
	/* Constant. */
	struct context *context; /* with a reference */
	char *id;                /* chosen by the client, or NULL */
	char *code;              /* NULL: variables are set */
	size_t size;
	struct json_object *variables;
	int64_t timeout_ms;

	/* Covered by the context's lock. */
	unsigned references;
	struct run *next;
	bool begun, over;
	bool kept;               /* runs even if nobody waits for it */
	unsigned interrupted;    /* by request, so many times */
	struct command *command; /* whose output it reads; with a reference, set once it has begun */
	uint64_t off, end;       /* what was read of the output; its end, once known */
	struct result *results;
	size_t results_count, results_read, results_size;
	size_t left_out; /* results beyond what is kept */
	struct json_object *error;
	int64_t count;
	struct json_object *given; /* what run_next has handed out last: the reader's alone */
};

struct executor {
	struct command *command; /* with a reference; NULL: there is none */
	struct spool_watch *watch;
	int channel, pidfd;
	struct buf input; /* bytes of the channel that are no line yet */
	size_t scanned;   /* so many of them hold no newline */
	bool ready;
	uint64_t seen; /* how much of its output belongs to earlier runs */
};

struct context {
	/* Constant. */
	struct interpreter *table;
	struct server *server;
	char *id, *cwd;
	char *mark; /* by which its processes are known: no other context anywhere has it */
	enum language language;
	struct json_object *env;
	pthread_t thread;
	int wake; /* an eventfd: look again */
	atomic_uint references;

	struct context *next; /* covered by the table's lock */

	pthread_mutex_t lock;   /* covers the rest */
	pthread_cond_t changed; /* also at output of the executor */
	struct run *first, **last;
	struct run *current;
	bool deleted, restarting;
	struct command *command; /* as executor.command, for others; with a reference */
	char *kernel;            /* what runs it, once known */
	struct json_object *missing;

	struct executor executor; /* the thread's alone */
	unsigned starts;          /* likewise */
};

/* executor.c: brings up the executor, and again where it is gone. 0; else *error is new. */
int executor_ready(struct context *c, struct run *r, struct json_object **error);
/* Sends the run and takes what comes back until its end. *error is new or NULL. */
void executor_run(struct context *c, struct run *r, struct json_object **error);
/* Ends it with all its processes, and releases it. */
void executor_end(struct context *c);

/* interpreter_run.c: {"ename","evalue","traceback"} for an error of ours. New. */
struct json_object *run_error(const char *name, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
