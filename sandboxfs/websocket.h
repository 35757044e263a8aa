/*
 * WebSockets to services in a sandbox (through its server's relay), or to its server itself.
 *
 * A set belongs to one sandbox and owns one thread and all sockets; connections take no thread of their own. What is received is handed
 * on piece by piece and never kept here; while its owner has no room the socket is not read, so that the peer waits. What is to
 * be sent is kept up to WEBSOCKET_QUEUE bytes; who sends more waits. Pings are answered here.
 *
 * Thread-safe. Knows nothing of files.
 */
#ifndef SBX_WEBSOCKET_H
#define SBX_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "call.h"
#include "sandbox.h"

enum {
	WEBSOCKET_CONNECTIONS = 256, /* of one set */
	WEBSOCKET_QUEUE = 1 << 20,
	WEBSOCKET_CLOSE_MS = 5000 /* how long the other side may take to answer a close */
};

enum { /* close codes that this side says or makes up */
	WEBSOCKET_NORMAL = 1000,
	WEBSOCKET_GOING_AWAY = 1001,
	WEBSOCKET_NO_CODE = 1005,
	WEBSOCKET_ABNORMAL = 1006
};

struct websocket_set;
struct websocket;

/* 0 and *out new; its thread starts with the first connection. sb is borrowed until websocket_set_stop. */
int websocket_set_new(struct sandbox *sb, struct websocket_set **out);
/* Breaks all connections (their ends are told) and ends the thread; none can be opened any more. Idempotent. */
void websocket_set_stop(struct websocket_set *s);
/* Stops it and gives it back. Connections may be put later. */
void websocket_set_free(struct websocket_set *s);

struct websocket_spec {
	uint16_t port;              /* in the sandbox; 0: the sandbox's own server */
	const char *path;           /* with query, encoded */
	const char *protocol;       /* offered, separated by commas; NULL: none */
	const char *const *headers; /* "NAME:VALUE", NULL-terminated; NULL: none */
};

struct websocket_end {
	int err;            /* 0: closed by both sides as it should be; else a negative errno */
	uint16_t code;      /* what the other side said; WEBSOCKET_NO_CODE, WEBSOCKET_ABNORMAL */
	const char *reason; /* borrowed, never NULL; UTF-8 */
};

/* They run on the set's thread with its lock held: no function of this room may be called from them, and they must not block. */
struct websocket_events {
	/* May more be handed on? false: not before websocket_resume. NULL: always */
	bool (*room)(void *arg);
	/* The next bytes of a message; n may be 0. last: the message ends with them. */
	void (*data)(void *arg, bool text, const void *p, size_t n, bool last);
	/* More may be sent without waiting than before. NULL: nobody wants to know */
	void (*sent)(void *arg);
	/* The last event. */
	void (*end)(void *arg, const struct websocket_end *end);
};

/*
 * Connects and waits until the service has accepted. 0 and *out a new reference, or an errno with a fault (then no event
 * comes, but data may have). Waits for sandbox_ready first.
 */
int websocket_open(struct websocket_set *s, struct call *c, const struct websocket_spec *spec,
	const struct websocket_events *ev, void *arg, struct websocket **out);
struct websocket *websocket_get(struct websocket *w);
/* The last one closes the connection as websocket_leave does. */
void websocket_put(struct websocket *w);
/* What the service chose; NULL: none. Borrowed from w. */
const char *websocket_protocol(const struct websocket *w);

/* Sends one message; waits while the queue is full (wait false: -EAGAIN). -EPIPE: it is closed or closing. */
int websocket_send(
	struct websocket *w, struct call *c, bool text, const void *p, size_t n, bool wait);
/* Would a message be taken without waiting, or refused? */
bool websocket_writable(struct websocket *w);
/* There is room again. */
void websocket_resume(struct websocket *w);
/*
 * Closes it after what was sent before; waits for its end (c NULL: does not). 0, also if it has ended; -EINTR: it will end all the
 * same.
 */
int websocket_close(struct websocket *w, struct call *c, uint16_t code);
/* When it returns no event runs or will run. The connection is closed in the background, after what was sent before. Idempotent. */
void websocket_leave(struct websocket *w);

#endif
