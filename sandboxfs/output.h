/*
 * An output: the frames of one command (frames.h), read through every break of the link.
 *
 * A stream that breaks is taken up again at the next byte, with back-off, until the command's end has come or the sandbox is known to
 * be gone: then the end is unknown (-ESTALE), never a success. One thread per sandbox (the keeper, made at the first use) opens
 * broken streams again and says the ends; bytes are handed on by the HTTP loop's thread. No thread waits for a command.
 *
 * Thread-safe. Knows nothing of runs, processes and files.
 */
#ifndef SBX_OUTPUT_H
#define SBX_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "call.h"
#include "sandbox.h"

struct output;

struct output_end {
	int err; /* 0: code is what the sandbox said; else a negative errno, and the end is not known */
	int code;           /* exit code, 128+N for signal N */
	bool timed_out;     /* it was ended by its time-out */
	bool may_run;       /* with err: it may still run, or may have */
	uint64_t time;      /* microseconds since 1970, by the sandbox's clock; 0 unknown */
	const char *reason; /* with err: borrowed, may be NULL: what the server or the link said */
};

/*
 * started, data and gap run on the HTTP loop's thread and must not block; end runs on the keeper's, once, and is the last.
 * In end, output_close may be called. room false pauses until output_resume (NULL: there is always room).
 */
struct output_events {
	bool (*room)(void *arg);
	void (*started)(void *arg, uint64_t time, uint32_t pid);
	void (*data)(void *arg, uint64_t time, unsigned stream, const void *p, size_t n);
	void (*gap)(void *arg, unsigned stream, uint64_t n); /* n bytes are no longer kept */
	void (*end)(void *arg, const struct output_end *end);
};

/*
 * Starts command id with body (frames.h; its content is taken in any case) and waits until it runs: 0 and *out new. A start
 * that got no answer is repeated until timeout= is over. On an error nothing is open and no event comes, and *may_run tells
 * whether it may have run all the same (it is being cancelled then); but for -EINTR *out is new too, the command is being cancelled, and its end will be told.
 */
int output_start(struct sandbox *sb, struct call *c, const char *id, struct buf *body,
	const struct output_events *ev, void *arg, struct output **out, bool *may_run);
/* Reads what command id says from byte `from` on (both streams). Does not wait. 0 and *out new. */
int output_attach(struct sandbox *sb, const char *id, uint64_t from, const struct output_events *ev,
	void *arg, struct output **out);
void output_resume(struct output *o);
/* When it returns no event runs or will run. The command goes on. Not from started, data and gap. NULL is allowed. */
void output_close(struct output *o);

/* Asks the sandbox to end command id (TERM, KILL after 2 s), without waiting; repeated while the link is down, for a minute. */
int output_cancel(struct sandbox *sb, const char *id);

#endif
