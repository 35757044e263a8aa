/*
 * Many connections over one stream of bytes: how sandboxfs reaches the sockets of a sandboxd to which a server's own interface gives no
 * connection, but a terminal (protocol of the carrier: whatever passes bytes both ways, in order).
 *
 * One side accepts connections from a listening socket (the client), the other makes one for each of those (the sandbox). Bytes and
 * half-closes pass both ways.
 *
 * A frame is a header of MUX_HEADER bytes, numbers little-endian, and a payload:
 *   u32 check     CRC-32 of all that follows in the frame
 *   u32 sequence  of this direction, from 0, one more for each frame
 *   u32 stream    which connection, counted by the client from 1; 0: the carrier itself
 *   u16 length    of the payload, up to MUX_PAYLOAD
 *   u8  type      enum mux_type
 *   u8  version   MUX_VERSION
 * A carrier that loses, repeats or changes a byte is seen by check and sequence, and ends: no connection gets wrong bytes for right ones.
 *
 * Flow control, so that nothing in between has to keep much: on each connection no more than MUX_WINDOW bytes are under way in a direction
 * until the other side gives CREDIT for what its socket has taken; on the whole carrier no more than MUX_FLIGHT until an ACK tells
 * what has arrived. A side that hears no whole frame for MUX_SILENCE_MS ends; it sends a PING when it has sent nothing for MUX_PING_MS.
 *
 * Knows nothing of terminals, WebSockets, HTTP. One mux_run is one thread's; it owns the sockets of its connections.
 */
#ifndef SBX_MUX_H
#define SBX_MUX_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What the sandbox's side says on a terminal before its first frame: it serves from here on; or why not, to the end of the line. */
#define MUX_GREETING "\x1eSANDBOXFS-MUX-1\n"
#define MUX_REFUSAL "\x1eSANDBOXFS-ERR "

enum {
	MUX_VERSION = 1,
	MUX_HEADER = 16,
	MUX_PAYLOAD = 16 << 10,
	MUX_WINDOW = 256 << 10,
	MUX_FLIGHT = 2 << 20,
	MUX_CONNECTIONS = 512,
	MUX_PING_MS = 10000,
	MUX_SILENCE_MS = 35000
};

enum mux_type {
	MUX_OPEN,   /* from the client: a new connection */
	MUX_DATA,   /* its bytes */
	MUX_CREDIT, /* payload u32: so many more may be sent */
	MUX_END,    /* no more data from this side */
	MUX_RESET,  /* it is broken; no more of it either way */
	MUX_ACK, /* stream 0, payload u64: all bytes of the carrier (headers too) that have arrived up to now */
	MUX_PING /* stream 0 */
};

/* The stream below. Its functions must not block. */
struct mux_carrier {
	/* What poll(2) is to wait for. wants_write: there is more to be sent. */
	int (*poll_fd)(void *arg);
	short (*poll_events)(void *arg, int wants_write);
	/* 0 and *n > 0 bytes read; -EAGAIN; -EPIPE at its end; another errno. Called until -EAGAIN. */
	int (*read)(void *arg, void *p, size_t size, size_t *n);
	/* 0 and *n >= 0 bytes taken; -EAGAIN; another errno. Called with n 0 too, to get rid of what it keeps itself. */
	int (*write)(void *arg, const void *p, size_t size, size_t *n);
	void *arg;
};

struct mux_spec {
	struct mux_carrier carrier;
	int listener; /* the client's; -1: this is the sandbox's side */
	/* The sandbox's side: a connected non-blocking socket for a new connection, or a negative errno. */
	int (*connect)(void *arg);
	void *connect_arg;
	int stop_fd;             /* readable: end; -1: none */
	int ping_ms, silence_ms; /* 0: MUX_PING_MS, MUX_SILENCE_MS */
};

/*
 * Serves until the carrier ends (-EPIPE), is silent (-ETIMEDOUT), breaks the protocol (-EPROTO), another errno of it, or stop_fd is
 * readable (0). All connections are closed then; the descriptors of spec are the caller's.
 */
int mux_run(const struct mux_spec *spec);

#endif
