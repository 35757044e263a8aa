/*
 * What stands behind a name of ws/, or behind one opening of ws/PORT: a connection, one after the other, and what came over it.
 *
 * What was received is kept until whoever reads has read it, and beyond that up to WS_KEEP bytes, so that a reader consumes
 * nothing: each has a place of its own. When so much is unread the connection is not read any more, and the peer waits.
 * Thread-safe. Knows nothing of files.
 */
#ifndef CTL_WS_LINK_H
#define CTL_WS_LINK_H

#include "buf.h"
#include "websocket.h"

enum { WS_KEEP = 1 << 20 };

struct ws_link;
struct ws_reader;

/* set is borrowed until the last ws_link_connect. path, for messages, is copied. once: only one reader will come. */
int ws_link_new(struct websocket_set *set, struct sandbox *sb, const char *path, bool once,
	struct ws_link **out);
struct ws_link *ws_link_get(struct ws_link *l);
/* The last one closes the connection. */
void ws_link_put(struct ws_link *l);

/* Waits until it is open. 0, -EBUSY if it is, or an errno with a fault. */
int ws_link_connect(struct ws_link *l, struct call *c, const struct websocket_spec *spec);
/* -ENOTCONN and -EPIPE with a fault; else as websocket_send. */
int ws_link_send(struct ws_link *l, struct call *c, bool text, const void *p, size_t n, bool wait);
bool ws_link_writable(struct ws_link *l);
/* Closes and waits for the other side. */
int ws_link_close(struct ws_link *l, struct call *c, uint16_t code);
/* The name goes: closes without waiting, and nothing can be connected any more. */
void ws_link_hang_up(struct ws_link *l);
/* `connecting`, `open` or `closed CODE`, then `protocol P` and `reason TEXT` if there are. */
void ws_link_show(struct ws_link *l, struct buf *out);

/*
 * A reader, from the oldest message kept of this connection on. lines: each message and a newline; else a read gives bytes of one
 * message. wake(arg): there may be something to read, or room to write; any thread.
 */
int ws_reader_new(
	struct ws_link *l, bool lines, void (*wake)(void *arg), void *arg, struct ws_reader **out);
/* >0; 0: the connection was closed; -EAGAIN; or the errno of how it broke, once. Does not wait. */
ssize_t ws_reader_next(struct ws_reader *r, void *p, size_t n);
/* When it returns wake does not run and will not. */
void ws_reader_free(struct ws_reader *r);

#endif
