/*
 * A tunnel: a socket on this side whose connections reach the sandboxd in a sandbox to which its server gives no connection, but a
 * terminal over a WebSocket (wire.h). sandboxd is brought in where it is missing (carry.h), the terminal runs its attach mode, and
 * connections share the terminal's bytes (mux.h).
 *
 * A tunnel owns one thread, its socket and its wire. A wire that breaks is made anew when somebody connects, again and again, until the tunnel
 * is closed; who connected meanwhile is broken off then, or when that has failed, as those are that were open: whether the same sandboxd answers
 * is for others to see first. Whoever connects counts, also who only asks whether it answers: a sandbox that is known to be unreachable is gone
 * to again and again, and where servers are short takes the next place that is free.
 */
#ifndef SBX_TUNNEL_H
#define SBX_TUNNEL_H

#include "call.h"
#include "carry.h"
#include "http.h"
#include "run_dir.h"

struct tunnel;

/* So long a terminal is said goodbye to; an answer that drips is cut off then, too. */
enum { TUNNEL_LEAVE_MS = 5000 };

/* How a kind of server is gone through. Called by one thread at a time. */
struct tunnel_way {
	const struct http_target *target; /* of the server; borrowed for the life of the tunnel */
	/* The path of a new terminal (a session of this name) whose shell is program: new, NULL without memory. */
	char *(*terminal)(void *arg, const char *session, const char *program);
	/* That terminal is of no use any more: ends it, if that can be said. */
	void (*leave)(void *arg, struct call *c, const char *session);
	struct carrier carrier;
	int64_t start_ms; /* so long a cold sandbox may take, with all that is tried meanwhile */
	void *arg;
};

/* 0 and *out new once the first wire works; else a negative errno with a fault. way is copied. */
int tunnel_open(
	struct call *c, const struct tunnel_way *way, struct run_dir *dir, struct tunnel **out);
/* Where to connect; borrowed. */
const char *tunnel_socket(const struct tunnel *t);
/* How often its wire was made or broke: odd while there is one, another number when another may answer. Never waits. */
unsigned tunnel_wires(const struct tunnel *t);
/* Breaks what is open, says goodbye to the terminal by by_ms (call_now_ms), ends the thread, removes the socket. NULL is allowed. */
void tunnel_close(struct tunnel *t, int64_t by_ms);

#endif
