/*
 * The code interpreter: contexts, each with a language, a queue of runs and an executor (a process of its own that keeps
 * the state). Owns the table of contexts and a thread for each. Thread-safe.
 *
 * Runs of one context follow each other, contexts run side by side. An executor is an unlisted command (command.h): what
 * code prints is in that command's spool, byte for byte and live; what it displays and how it ends comes through a
 * channel (interpreter/kernel.py tells the lines). An executor that dies ends its run with an error, and the next run gets a
 * new one; if it died between runs, the next run says so instead of running.
 *
 * Lock order: the table, then one context. No lock of a command is taken with either of them held.
 */
#ifndef SANDBOXD_INTERPRETER_H
#define SANDBOXD_INTERPRETER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "server.h"
#include "spool.h"

struct json_object;
struct interpreter;
struct context;
struct run;

enum language { LANGUAGE_PYTHON, LANGUAGE_JAVASCRIPT, LANGUAGE_TYPESCRIPT, LANGUAGES };

/* "python", "javascript", "typescript". */
const char *language_name(enum language l);
/* Any of the words for it; false: none. */
bool language_find(const char *word, enum language *out);
/* NULL: it can be run; else what is missing, as a sentence. */
const char *language_lack(struct server *server, enum language l);

int interpreter_new(struct server *server, struct interpreter **out);
/* Nothing is started any more, and who waits is told. Before commands_stop. */
void interpreter_stop(struct interpreter *t);
/* After commands_stop. */
void interpreter_free(struct interpreter *t);

struct context_spec {
	const char *id; /* NULL: one is made */
	enum language language;
	const char *cwd;         /* absolute */
	struct json_object *env; /* borrowed; NULL: none */
};
/* Starts a context, whose executor comes up meanwhile. 0 and *out (new reference), -EEXIST, -EAGAIN (too many), -ESHUTDOWN, -ENOMEM. */
int context_new(struct interpreter *t, const struct context_spec *spec, struct context **out);
/* New reference or NULL. */
struct context *context_find(struct interpreter *t, const char *id);
void context_put(struct context *c);
/* New references to all, oldest first, in a new array. The count, or -ENOMEM. */
ssize_t context_all(struct interpreter *t, struct context ***out);
/* Takes it out of the table, ends its runs and kills all its processes. Waits for that, 5 s at most. 0 or -ENOENT. */
int context_delete(struct interpreter *t, const char *id);
/* Ends its executor; the next run gets a new one. */
void context_restart(struct context *c);
/*
 * ^C for the run that goes on or, with an id, for that run alone, which may still be waiting. 0, or -ESRCH: there is none.
 */
int context_interrupt(struct context *c, const char *run_id);

/* Constant, borrowed. */
const char *context_id(const struct context *c);
enum language context_language(const struct context *c);
const char *context_cwd(const struct context *c);
/* {"id","language","cwd","status","kernel"?,"missing"?}. New. */
struct json_object *context_describe(struct context *c);

/* Puts code, or variables (an object; code is NULL then), into the queue. 0 and *out, or a negative errno. */
int run_new(struct context *c, const char *run_id, const char *code, size_t n,
	struct json_object *variables, int64_t timeout_ms, struct run **out);
/* One that has not begun is dropped with this. */
void run_put(struct run *r);
/* The same, but it will be done in any case. */
void run_leave(struct run *r);

enum run_part {
	RUN_OUTPUT, /* bytes of `stream` in data */
	RUN_RESULT, /* a display: json is borrowed until the next call */
	RUN_OVER    /* count; json: {"ename","evalue","traceback"} borrowed, or NULL if it went well */
};
struct run_event {
	enum run_part part;
	enum spool_view stream;
	struct json_object *json;
	int64_t count;
};
/* Appends output to data. 1 and *e, -ETIMEDOUT at the deadline (CLOCK_MONOTONIC ms), or a negative errno. RUN_OVER is the last. */
int run_next(struct run *r, int64_t deadline_ms, struct run_event *e, struct buf *data);

#endif
