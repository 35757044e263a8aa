/*
 * The opening handshake of WebSockets (RFC 6455), the client's side: a request and what its answer says. Pure functions over bytes;
 * they own nothing and reach nobody.
 */
#ifndef SBX_WEBSOCKET_HANDSHAKE_H
#define SBX_WEBSOCKET_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "call.h"
#include "websocket.h"

enum { WEBSOCKET_KEY = 24 /* characters */, WEBSOCKET_HEAD_MAX = 16 << 10 };

/* 0, or -EINVAL with a fault that says what in spec cannot be sent. */
int websocket_check(struct call *c, const struct websocket_spec *spec);
/* A fresh key. 0 or a negative errno. */
int websocket_make_key(char key[WEBSOCKET_KEY + 1]);
/* Appends the request. host: what the Host header says unless spec does; token: for the server itself, else NULL. */
int websocket_request(struct buf *out, const struct websocket_spec *spec, const char *host,
	const char *token, const char *key);

/* What Sec-WebSocket-Accept must be for key: new; NULL: out of memory. */
char *websocket_accept(const char *key);

/* How long the head at p is, with its empty line. 0: it is not whole yet; -EPROTO: it is none, or too long. */
ssize_t websocket_head_size(const char *p, size_t n);
/* The status of a whole head; 0: not HTTP. */
int websocket_head_status(const char *p, size_t n);
/*
 * Does the head accept? 0 and *protocol new (NULL: none was chosen), or a negative errno with *why new: what is wrong, for a person (NULL: out
 * of memory). wanted: the protocols that were offered, NULL: none.
 */
int websocket_answer(
	const char *p, size_t n, const char *key, const char *wanted, char **protocol, char **why);

#endif
