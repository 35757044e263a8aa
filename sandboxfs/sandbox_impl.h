/*
 * Inside of struct server and struct sandbox, for server.c, sandbox*.c alone.
 */
#ifndef SBX_SANDBOX_IMPL_H
#define SBX_SANDBOX_IMPL_H

#include <stdatomic.h>

#include "driver.h"
#include "front.h"
#include "sandbox.h"
#include "waitq.h"

struct attachment {
	const void *key;
	void *data;
	void (*stop)(void *data); /* NULL: nothing to be ended */
	void (*release)(void *data);
	struct attachment *next;
};

struct target_box {
	struct http_target target;
	struct target_box *next;
};

/* Lock order: server.lock, then sandbox.lock; neither is held over a driver, HTTP or files call. */
struct sandbox {
	struct server *server;
	char *name;
	_Atomic unsigned refs;

	pthread_mutex_t lock; /* covers all below */
	enum sandbox_state state;
	char *detail; /* a sentence on the state; NULL: none */
	struct timespec since;
	bool started;             /* instance is valid */
	bool starting;            /* somebody starts it: wait in changed */
	struct call *starter;     /* that one's call; NULL: nobody */
	bool gone;                /* destroyed */
	bool closed;              /* the mount ends: it is not started again */
	bool died;                /* the instance ended by itself; stop is due */
	unsigned long generation; /* of instances */
	struct driver_instance instance;
	struct target_box *targets; /* where its servers listened, the newest first */
	struct waitq changed;
	int64_t answered_ms; /* when an answer last came; 0 never */
	uint8_t boot[16];
	bool has_boot;
	uint64_t workspace_ino, avail;
	unsigned ways;   /* of the instance, when it last said who it is */
	bool replaced;   /* what was in it is gone, and the person has not said to go on */
	atomic_int uses; /* that last; not under the lock */
	int64_t used_ms, sleep_after_ms; /* sandbox_idle.c's, as keepalive */
	bool keepalive;
	struct http_stream *ping; /* the prober's alone, as ping_until_ms; NULL: it asks nothing */
	int64_t ping_until_ms;
	int ping_status; /* of its answer so far: the HTTP loop's while there is a ping */
	bool ping_over;
	struct fault fault;
	struct attachment *attachments;
	bool attachments_due; /* destroyed: the prober is to stop them. Under server.lock */
	const struct sandbox_files *files_ops;
	void *files;
	struct sandbox *next; /* server's list, by name; under server.lock */
};

struct server {
	const struct options *options;
	struct http *http;
	const struct driver_ops *driver;
	void *driver_state;
	struct front *front;

	pthread_mutex_t lock;
	pthread_cond_t changed;    /* a thread in the background ended, or stop */
	struct sandbox *sandboxes; /* one reference each */
	struct sandbox
		*destroyed; /* likewise: nodes of the kernel may still point to what is attached to them */
	struct fault fault;
	unsigned background; /* threads of server_in_background */
	bool end_due;        /* a destroyed one has attachments_due */
	bool stop;
	int64_t end_by_ms; /* of sandbox_end_by; 0: the mount does not end */
	pthread_t prober;
	bool has_prober;
};

int sandbox_new(struct server *s, const char *name, struct sandbox **out);
/* Ends the instance; it is not started again. Waits for a start in progress: cancel that one's call. */
void sandbox_stop(struct sandbox *sb);
/* Ends what they attached to one that was destroyed; they may still be at work. Not on a thread that answers requests. */
void sandbox_stop_attachments(struct sandbox *sb);
/* Frees what the rooms above attached; none of them is at work any more. */
void sandbox_release_attachments(struct sandbox *sb);
/* By when the driver's stop is to be over: sandbox_end_by, and a second for itself. */
int64_t sandbox_stop_by(struct sandbox *sb);
/* Starts it, or waits for who starts it. */
int sandbox_start(struct sandbox *sb, struct call *c);
/* Runs f(sb) on a thread of its own, for which the end of the server waits: 0, or an error if there is none. */
int server_in_background(struct sandbox *sb, void (*f)(struct sandbox *sb));
/* Lets go of one that nobody uses, in the background. */
void sandbox_rest(struct sandbox *sb);
/*
 * Asks an unreachable one whether it answers again, unless it is being asked; waits for nothing. The prober's alone, as is
 * sandbox_probe_end, which takes that back, until the prober has ended.
 */
void sandbox_probe(struct sandbox *sb);
void sandbox_probe_end(struct sandbox *sb);
/* Where another may have come to answer: asks who it is. 0, or an error with a fault. */
int sandbox_look_who(struct sandbox *sb, struct call *c);
/* May something be changed in it? 0, or -ESTALE with a fault: not before sandbox_accept. */
int sandbox_fault_replaced(struct sandbox *sb, struct call *c);
enum { RETRY_FIRST_MS = 20, RETRY_MAX_MS = 1000, PING_TIMEOUT_MS = 5000 };
/* Sleeps, unless something about the sandbox changes or the call is cancelled. */
int sandbox_pause(struct sandbox *sb, struct call *c, int64_t ms);
/* Why it is not started again: it was destroyed (gone), or the mount ends. -ESTALE. */
int sandbox_fault_over(struct sandbox *sb, struct call *c, bool gone);
void sandbox_set_state(
	struct sandbox *sb, enum sandbox_state state, const char *detail); /* lock held */
/* It answers: running, or replaced until that is accepted. Lock held. */
void sandbox_set_answering(struct sandbox *sb);

#endif
