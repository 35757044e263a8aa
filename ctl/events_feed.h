/*
 * A feed of changes: what one opening of `events` hears. It is armed when events_open returns, opens its stream again when the link
 * broke, and says what was missed. Thread-safe but for events_close. Knows nothing of files and conversations.
 */
#ifndef CTL_EVENTS_FEED_H
#define CTL_EVENTS_FEED_H

#include "buf.h"
#include "call.h"
#include "events_line.h"
#include "sandbox.h"

struct events;

/* 0 and *out new, armed; -ENOTSUP, -ETIMEDOUT, -ESTALE, ... with a fault. wake(arg) is called from any thread. */
int events_open(struct sandbox *sb, struct call *c, const struct events_request *q,
	void (*wake)(void *arg), void *arg, struct events **out);
/* Lines that have come, as ctl_stream_ops.next: >0 bytes, 0 the end, -EAGAIN, or why it is over. Does not wait. */
ssize_t events_take(struct events *e, void *p, size_t n);
/* Puts a line before all that has not been taken; takes its content. -EPROTO: it is none. */
int events_put_first(struct events *e, struct buf *line);
/* When it returns nothing wakes and nothing will. */
void events_close(struct events *e);

#endif
