/*
 * A pattern looked for line by line in a log that comes in pieces.
 *
 * Owns the compiled pattern (PCRE2, so that patterns of JavaScript work) and the unfinished line of each stream: two streams whose
 * pieces mix do not mix their lines. Bytes need not be UTF-8. A match that would take too long is an error, not a wait.
 */
#ifndef CTL_LOG_MATCH_H
#define CTL_LOG_MATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "call.h"

struct log_match;

enum { LOG_MATCH_LINE_MAX = 1 << 20 /* bytes of a line that are looked at */ };

/* 0 and *out new, or -EINVAL with a fault that shows where the pattern is wrong. */
int log_match_new(struct call *c, const char *pattern, size_t n, struct log_match **out);
void log_match_free(struct log_match *m); /* NULL is allowed */
/*
 * The next piece of stream 1 or 2. 1: a line matched, and it and its groups are appended to answer, one a line; 0: not yet;
 * or a negative errno.
 */
int log_match_feed(struct log_match *m, struct call *c, unsigned stream, const char *p, size_t n,
	struct buf *answer);
/* The log has ended: its last lines, if they have no newline. */
int log_match_end(struct log_match *m, struct call *c, struct buf *answer);

#endif
