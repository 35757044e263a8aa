/*
 * The frames of WebSockets, a server's side (RFC 6455, 5): bytes in, messages out, and the other way. Owns what is half received and
 * what is to be sent. No sockets, no time, no extensions. Of one thread.
 *
 * Our own, since a static sandboxd is carried into sandboxes and no library of frames is there to be linked into it.
 */
#ifndef SANDBOXD_WS_FRAMES_H
#define SANDBOXD_WS_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

enum ws_opcode {
	WS_CONTINUATION = 0,
	WS_TEXT = 1,
	WS_BINARY = 2,
	WS_CLOSE = 8,
	WS_PING = 9,
	WS_PONG = 10
};

enum { WS_HEADER_MAX = 14, WS_CONTROL_MAX = 125 };

struct ws_frames {
	/* A whole message. Borrowed bytes; it may queue and close. */
	void (*message)(void *arg, bool binary, const void *p, size_t n);
	void *arg;
	size_t message_max;

	unsigned char header[WS_HEADER_MAX]; /* of the frame that comes */
	size_t header_size;
	bool in_payload;
	uint64_t left;      /* of its payload */
	uint64_t at;        /* in its payload, for the mask */
	struct buf control; /* payload of a control frame */
	struct buf body;    /* of the message, over its frames */
	uint8_t opcode;     /* of the message, WS_CONTINUATION: none is open */

	struct buf out; /* to be sent, from out_at */
	size_t out_at;
	bool closed; /* we have said so: nothing more is queued */
	bool over;   /* nothing more is taken: they have said so, or broken the rules */
};

void ws_frames_init(struct ws_frames *f,
	void (*message)(void *arg, bool binary, const void *p, size_t n), void *arg,
	size_t message_max);
void ws_frames_release(struct ws_frames *f);

/*
 * Takes what has come. Pings and closings are answered, what breaks the rules is answered with a closing; after either no more is
 * taken. 0 or -ENOMEM.
 */
int ws_frames_take(struct ws_frames *f, const void *p, size_t n);
/* Queues a message, or a control frame of up to WS_CONTROL_MAX bytes. Nothing is queued after a closing. 0 or -ENOMEM. */
int ws_frames_put(struct ws_frames *f, enum ws_opcode opcode, const void *p, size_t n);
/* Queues a closing, behind all else. Idempotent. 0 or -ENOMEM. */
int ws_frames_close(struct ws_frames *f, unsigned code, const char *reason);
/* What is to be sent (borrowed), *n bytes; then ws_frames_sent of those that went. */
const void *ws_frames_out(const struct ws_frames *f, size_t *n);
void ws_frames_sent(struct ws_frames *f, size_t n);

#endif
