/*
 * Log events: what a process prints as JSON lines, the SDK's fields. Bytes that are not UTF-8 come in dataBase64 beside data.
 * Owns the half characters between two pieces; a state belongs to one reader.
 */
#ifndef CTL_LOG_EVENT_H
#define CTL_LOG_EVENT_H

#include "buf.h"
#include "feed.h"

struct log_event_state {
	const char *id;           /* borrowed: the process's; NULL: of exec.json, which has none */
	unsigned char half[3][4]; /* by stream (1, 2): a character that is not whole yet */
	size_t halves[3];
	uint64_t time[3];
	uint64_t
		told; /* the newest time told: the sandbox's clock and ours are not one, and lines keep their order when they are sorted */
};

void log_event_init(struct log_event_state *s, const char *id);
void log_event_release(struct log_event_state *s);
/* Appends the lines that follow from item. */
void log_event_put(struct log_event_state *s, const struct feed_item *item, struct buf *out);

/* How many of the n bytes at p can be told now: all but a character cut at the end. *valid: these are UTF-8. */
size_t log_event_whole(const char *p, size_t n, bool *valid);

#endif
