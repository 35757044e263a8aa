/*
 * A terminal in the sandbox, and the program that runs at it: a command of frames.h with a size. Owns the stream of its output (read
 * through every break of the link), the newest TERMINAL_KEEP bytes of it, and the order of what is typed.
 *
 * Readers consume nothing: each has a place of its own. Thread-safe, reference counted. Knows nothing of files.
 */
#ifndef SBX_TERMINAL_H
#define SBX_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "call.h"
#include "sandbox.h"

enum {
	TERMINAL_KEEP = 256 << 10,
	TERMINAL_SIDE_MAX = 10000,
	TERMINAL_COLUMNS = 80,
	TERMINAL_ROWS = 24
};

struct json_object;
struct terminal;
struct terminal_reader;

struct terminal_spec {
	unsigned columns, rows;
	const char *shell;       /* a program; NULL: bash, else sh */
	struct json_object *env; /* borrowed: an object of strings; NULL: none */
	/* Its program has ended, or its end will not be known: any thread, once. Readers are told after terminal_tell_end. */
	void (*ended)(void *arg, struct terminal *t);
	void *arg;
};

/*
 * Starts it and returns when it runs: 0 and *out a new reference, or an errno with a fault. sb is borrowed until terminal_stop.
 * Barriers are the caller's.
 */
int terminal_start(
	struct sandbox *sb, struct call *c, const struct terminal_spec *spec, struct terminal **out);
void terminal_put(struct terminal *t);
void terminal_size(struct terminal *t, unsigned *columns, unsigned *rows);

/*
 * Types n bytes after all that was typed before; returns when the terminal has taken them. Goes on through breaks of the link, for
 * timeout=. -EPIPE: its program has ended; -EAGAIN: others type (wait false); -EINTR: some of it may have been typed.
 */
int terminal_type(struct terminal *t, struct call *c, const void *p, size_t n, bool wait);
int terminal_resize(struct terminal *t, struct call *c, unsigned columns, unsigned rows);
int terminal_signal(struct terminal *t, struct call *c, const char *name);
/* Hangs up: what runs there gets HUP, and is ended if it stays. */
void terminal_hang_up(struct terminal *t, struct call *c);
/* The same without waiting; the sandbox is not asked any more when it returns. Its end, if it is not known, is unknown. Idempotent. */
void terminal_stop(struct terminal *t);
/* Caches are settled: readers may be told the end. */
void terminal_tell_end(struct terminal *t);

/* A reader, from the newest TERMINAL_KEEP bytes on; of the end alone: from there. wake: any thread. */
int terminal_reader_new(struct terminal *t, bool end_alone, void (*wake)(void *arg), void *arg,
	struct terminal_reader **out);
/* >0; 0: it has ended; -EAGAIN; -ESTALE once: how it ended is not known. Of the end alone: its exit code as a line, or `unknown`. */
ssize_t terminal_reader_next(struct terminal_reader *r, void *p, size_t n);
/* When it returns wake does not run and will not. */
void terminal_reader_free(struct terminal_reader *r);

#endif
