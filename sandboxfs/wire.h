/*
 * A wire: one WebSocket to a server's URL, over TLS where the URL says https, as a stream of bytes for mux_run.
 *
 * libcurl makes the connection (names, TLS and its verification, proxies), libwslay the frames, websocket_handshake.h the words between. Not
 * a part of websocket.h: those sockets are many, plain, and on the sandbox's own server; this one is alone and has a thread that
 * waits for it. A redirect is an answer like any other: nobody else gets the token.
 *
 * One thread's. Knows nothing of terminals and of what it carries.
 */
#ifndef SBX_WIRE_H
#define SBX_WIRE_H

#include "call.h"
#include "http.h"
#include "mux.h"

struct wire;

/*
 * Connects and waits until the server has accepted: 0 and *out new. Else a negative errno with a fault: -EACCES (the token), -EAGAIN (not now:
 * 429, 502, 503, 504, or it broke off), -ECONNRESET (it broke off before there was a connection, in the handshake of TLS), -ENOTSUP (404: nothing
 * of the kind is there), -EHOSTUNREACH, -EPROTO, -ETIMEDOUT, -EINTR.
 */
int wire_open(struct call *c, const struct http_target *target, const char *path, int64_t deadline,
	struct wire **out);
/*
 * Skips what comes until mark (n bytes, inclusive): 0. -EPIPE with the fault saying what the server said instead, if anything; -EPROTO
 * after `most` bytes; -ETIMEDOUT; -EINTR. On a line that begins with `bad`, -EIO with what follows in the fault.
 */
int wire_await(struct wire *w, struct call *c, const char *mark, const char *bad, size_t most,
	int64_t deadline);
/* For mux_run; borrowed from w. */
struct mux_carrier wire_carrier(struct wire *w);
/* Ends the connection. NULL is allowed. */
void wire_close(struct wire *w);

#endif
