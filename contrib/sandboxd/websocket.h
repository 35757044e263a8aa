/*
 * The server's side of WebSockets: the handshake, and messages both ways on the connection's own thread. Frames are those of ws_frames.h. Owns
 * the connection while it runs.
 */
#ifndef SANDBOXD_WEBSOCKET_H
#define SANDBOXD_WEBSOCKET_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "http.h"

enum { WEBSOCKET_MESSAGE_MAX = 16 << 20 };

enum websocket_code {
	WEBSOCKET_NORMAL = 1000,
	WEBSOCKET_GOING_AWAY = 1001,
	WEBSOCKET_INTERNAL = 1011
};

struct websocket;

struct websocket_handler {
	/* Serves until the connection is over (websocket_step says so). On the connection's thread, which may block. */
	void (*run)(struct websocket *w, void *arg);
	void (*message)(struct websocket *w, void *arg, bool binary, const void *p, size_t n);
	void (*release)(void *arg); /* once, also when it never ran */
};

/* Does the request ask for a WebSocket, as it must? */
bool websocket_is_wanted(struct request *r);
/* The answer that opens it. arg is taken. */
enum MHD_Result reply_websocket(
	struct request *r, const struct websocket_handler *handler, void *arg);

/* Queues a message (copied). 0 or -ENOMEM. */
int websocket_send(struct websocket *w, bool binary, const void *p, size_t n);
/* {"type":…} and what is in o: taken. */
int websocket_send_json(struct websocket *w, struct json_object *o);
/* Bytes that are queued and not yet sent. */
size_t websocket_pending(struct websocket *w);
/* No message is taken from the peer until it is called with false. */
void websocket_pause(struct websocket *w, bool paused);
/* Closes once what was queued before has gone. reason is borrowed for good. */
void websocket_close(struct websocket *w, enum websocket_code code, const char *reason);
/*
 * Waits until something comes, one of the others is ready, or ms; sends and receives what can be. False: it is over.
 */
bool websocket_step(struct websocket *w, struct pollfd *others, size_t count, int ms);

#endif
