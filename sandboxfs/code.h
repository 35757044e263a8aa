/*
 * One run of code in a context of the interpreter: its events in, what came of it kept.
 *
 * Owns what a run has printed (a spool), what a person at an interpreter would have seen of it (another), its displays (a
 * third, all bounded by output-max=) and its error. code_run.c sends and receives, code.c keeps, code_show.c shows. A run that loses its
 * stream has an unknown end: the server cannot say again what it has said.
 *
 * Thread-safe. Knows nothing of files of the control tree.
 */
#ifndef SBX_CODE_H
#define SBX_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "buf.h"
#include "call.h"
#include "sandbox.h"
#include "spool.h"

struct code_run;

/* One form of one display. Lives as long as its run. */
struct code_file {
	struct code_run *run;
	unsigned number;  /* of the display, from 0 */
	const char *form; /* "text", "png", ... */
	const char *ext;  /* "txt", "png", ... */
	uint64_t off, size;
};

/* 0 and *out new: nothing has come yet. */
int code_run_new(struct sandbox *sb, struct code_run **out);
struct code_run *code_run_get(struct code_run *r);
void code_run_put(struct code_run *r);

struct code_spec {
	const char *context; /* as the server calls it */
	const char *code;
	size_t size;
	int64_t timeout_ms; /* <=0: none */
};
/*
 * Sends it and takes what comes, until its end. 0: it has ended, well or with an exception of its own. -ENOENT: there is no such
 * context (nothing was done; may be tried again). Else it has no end that means something, with a fault: -ETIMEDOUT its time-out,
 * -EIO its interpreter died, -ESTALE that was ended by request, or as http.h.
 */
int code_run_do(struct code_run *r, struct call *c, const struct code_spec *spec);
/* ^C for it, whether it has begun or not. Does not wait. */
void code_run_interrupt(struct code_run *r);
/* Its end may be told: 0, or err with its fault. Once, the last that is done to it. */
void code_run_settle(struct code_run *r, int err, const struct fault *f);
bool code_run_settled(struct code_run *r);
/* Waits for that. -EINTR: it goes on; else as code_run_do. */
int code_run_wait(struct code_run *r, struct call *c);

/* What it printed, stdout and stderr; and what a person would have seen, which ends when the run is settled. Borrowed. */
struct spool *code_run_printed(struct code_run *r);
struct spool *code_run_said(struct code_run *r);
struct timespec code_run_time(struct code_run *r); /* its end, else its beginning */

size_t code_run_files(struct code_run *r);
const struct code_file *code_run_file(struct code_run *r, size_t i);
ssize_t code_file_read(const struct code_file *f, void *p, size_t n, uint64_t off);

/* `NAME: MESSAGE` and the traceback; nothing if it has ended well, or not yet. */
void code_run_put_error(struct code_run *r, struct buf *out);
/* {"code"?,"outputs","error","results","logs","executionCount"}. 0 or an errno. */
int code_run_put_json(struct code_run *r, struct buf *out);

#endif
