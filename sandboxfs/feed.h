/*
 * A feed: what one command prints, to be pulled by one reader at its own speed.
 *
 * Owns the output (output.h) and a bounded queue between the HTTP loop, which fills it, and the reader, who empties it: a full
 * queue pauses the stream. A feed may wait unattached for a process that is not started yet. Knows nothing of files.
 */
#ifndef SBX_FEED_H
#define SBX_FEED_H

#include "output.h"

struct feed;

enum feed_kind { FEED_DATA, FEED_GAP, FEED_EXIT, FEED_LOST };

struct feed_item {
	enum feed_kind kind;
	unsigned stream; /* FEED_DATA, FEED_GAP: 1 stdout, 2 stderr */
	uint64_t time;   /* microseconds since 1970 */
	const char *p;   /* FEED_DATA: valid until the next feed_next */
	size_t n;
	uint64_t gap;
	int code; /* FEED_EXIT */
	bool timed_out;
	int err;            /* FEED_LOST: negative errno */
	const char *reason; /* FEED_LOST: valid until feed_close; may be NULL */
};

/* wake(arg) is called, from any thread and without locks of the feed, when there is something to take. 0 and *out new. */
int feed_new(struct sandbox *sb, void (*wake)(void *arg), void *arg, struct feed **out);
/* Begins to read command id at byte `from`. Once. Does not wait. */
int feed_attach(struct feed *f, const char *id, uint64_t from);
/* 1 and *item, 0 after the end was taken, -EAGAIN: nothing yet. One thread at a time. Does not wait. */
int feed_next(struct feed *f, struct feed_item *item);
/* When it returns wake does not run and will not. NULL is allowed. */
void feed_close(struct feed *f);

#endif
