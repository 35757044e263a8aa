/*
 * Inside of the WebSockets' room: what websocket.c (owners), websocket_set.c (the thread, the way to the service) and
 * websocket_frames.c (libwslay) share. Others need websocket.h alone.
 */
#ifndef SBX_WEBSOCKET_IMPL_H
#define SBX_WEBSOCKET_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "buf.h"
#include "websocket.h"
#include "websocket_handshake.h"

struct wslay_event_context;

enum websocket_state {
	WEBSOCKET_CONNECTING,
	WEBSOCKET_RELAY, /* the request to the sandbox's server, and its answer */
	WEBSOCKET_SHAKE, /* the service's handshake */
	WEBSOCKET_OPEN,
	WEBSOCKET_CLOSING, /* nothing more may be sent; what was sent before, and a close, go out */
	WEBSOCKET_ENDED
};

/* Who waits for something of a connection: room, or a new state. */
struct waiter {
	struct waiter *next;
	struct call *call;
	atomic_bool told;
};

struct websocket {
	atomic_uint refs; /* the owner's; its set has it in a list until it has ended and has none */
	struct websocket_set *set; /* a reference */
	char *protocol;            /* written before anybody has a reference */

	/* under the set's lock */
	struct websocket *next, *prev;
	struct websocket_events ev;
	void *arg;
	bool left; /* no events any more */
	enum websocket_state state;
	int fd;
	uint32_t armed;
	int64_t deadline, again_at; /* <0: none; 0: not waiting to connect again */
	struct sockaddr_storage address;
	socklen_t address_size;
	struct buf out;     /* requests */
	struct buf request; /* the service's, while the server's is under way */
	struct buf in;      /* heads of answers, then what came behind the last of them */
	size_t in_at;
	char key[WEBSOCKET_KEY + 1];
	char *wanted;
	struct wslay_event_context *frames;
	bool text;         /* what comes in now */
	bool control;      /* the frame that comes in now is none of the owner's */
	bool final;        /* and is its message's last */
	bool paused;       /* its owner had no room */
	bool kicked;       /* the thread is to look at it */
	bool close_queued; /* wslay was told of ours */
	uint16_t close_code;
	int turns;
	bool full;         /* the last read was put off: too many pongs wait */
	size_t pongs;      /* of wslay's messages that are not sent yet */
	bool frame_begins; /* the next byte sent is a frame's first */
	bool pong_begun;   /* the frame that goes out now is a pong */
	struct waiter *waiters;
	int err; /* of the opening, or the end */
	char *why;
};

struct websocket_set {
	pthread_mutex_t lock; /* covers all below */
	struct sandbox *sb;
	unsigned refs; /* the owner's and each connection's */
	int epoll, wake;
	pthread_t thread;
	bool running, stop;
	struct websocket *first, *dead;
	unsigned count;
};

/* --- websocket_set.c; all with the lock held but the first --- */
void websocket_set_put(struct websocket_set *s);
/* The thread runs when it returns 0. */
int websocket_set_run(struct websocket_set *s);
void websocket_set_wake(struct websocket_set *s);
/* Frees what was put; only the thread, or who finds that none runs. */
void websocket_set_free_dead(struct websocket_set *s);
int websocket_try_connect(struct websocket *w);
/* Has the socket watched for what it waits for now. */
void websocket_arm(struct websocket *w);
void websocket_tell_waiters(struct websocket *w);
/* It is over: the socket goes, and its owner is told. why is borrowed, may be NULL. */
void websocket_finish(struct websocket *w, int err, const char *why);
/* Out of the list, and freed when nobody can name it any more. */
void websocket_bury(struct websocket *w);
/* Frees one that is in no list. */
void websocket_release(struct websocket *w);

/* --- websocket_frames.c; with the lock held --- */
int websocket_frames_begin(struct websocket *w);
/* Sends and receives what can be. False: it is over. */
bool websocket_frames_move(struct websocket *w);
/* Is it not to read before some of its pongs are sent? */
bool websocket_frames_full(const struct websocket *w);
/* Messages that wait, pongs apart. */
size_t websocket_frames_queued(const struct websocket *w);

#endif
