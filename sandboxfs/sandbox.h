/*
 * A sandbox as the rest of the program sees it: a name, a state, a link, and the ways to reach its server.
 * A server is the set of them (one mount).
 *
 * sandbox.c owns names, states, faults and reference counts, sandbox_link.c requests and whether they are answered; how a sandbox
 * comes to life is the driver's (driver.h).
 * Thread-safe. Functions that may wait take a call.
 */
#ifndef SBX_SANDBOX_H
#define SBX_SANDBOX_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include <time.h>

#include "buf.h"
#include "call.h"
#include "http.h"
#include "options.h"

struct sandbox;
struct server;

enum sandbox_state {
	SANDBOX_UNKNOWN, /* exists; nothing of it was needed yet */
	SANDBOX_STARTING,
	SANDBOX_RUNNING,
	SANDBOX_UNREACHABLE,
	SANDBOX_REPLACED,
	SANDBOX_IN_USE
};
const char *sandbox_state_word(enum sandbox_state s);

/* --- the server --- */

/* Opens the server that options name, and for a single container asks whether it answers. 0 and *out, or an errno with the sentence in c. */
int server_new(const struct options *o, struct http *h, struct call *c, struct server **out);
/*
 * The end, in two steps, when no handler is at work any more: first what the rooms above attached and the sandboxes
 * that run; then, when the kernel's nodes are gone as well, the memory.
 */
void server_end_sandboxes(struct server *s);
void server_free(struct server *s);
/* The front, for figures and for what is to be told to the kernel. */
struct front;
void server_set_front(struct server *s, struct front *f);
struct front *server_front(struct server *s);
const struct options *server_options(struct server *s);
struct http *server_http(struct server *s);
/* Looks in local knowledge only, sends no request. A new reference or NULL. */
struct sandbox *server_find(struct server *s, const char *name);
/* Calls cb for each known sandbox, in the order of their names; cb returns false to stop. */
void server_each(struct server *s, bool (*cb)(struct sandbox *sb, void *arg), void *arg);
/* mkdir: 0 and *out a new reference when the request is accepted; -EEXIST, -EINVAL, -EPERM with a fault. */
int server_create(struct server *s, struct call *c, const char *name, struct sandbox **out);
/* rmdir of what holds nothing (force false: -ENOTEMPTY with files or processes, sentence in the fault) or destroy. */
int server_destroy(struct server *s, struct call *c, const char *name, bool force);
/* url, kind, version and id-names lines, for ctl/server. */
void server_describe(struct server *s, struct buf *out);
/* Why this kind of server has not what the name says ("create", or a name in NAME/ctl/): static. NULL: it has it. */
const char *server_cannot(struct server *s, const char *name);
/* `NAME NUMBER` lines for ctl/stats. */
void server_describe_stats(struct server *s, struct buf *out);
/* The space that its sandboxes share, without a request. 0, or -ENOTSUP where nobody here can tell. */
int server_space(struct server *s, struct statvfs *out);
/* The newest fault that belongs to no sandbox. */
void server_note_fault(struct server *s, const struct fault *f);
void server_last_fault(struct server *s, struct fault *copy);

/* --- one sandbox --- */
struct sandbox *sandbox_get(struct sandbox *sb);
void sandbox_put(struct sandbox *sb);
const char *sandbox_name(const struct sandbox *sb);
struct server *sandbox_server(struct sandbox *sb);
const struct options *sandbox_options(struct sandbox *sb);

/* Starts it if need be and waits until it answers, up to timeout=. 0 or the errno of why not, with a fault. Answers at once if it answered within the last 10 s. */
int sandbox_ready(struct sandbox *sb, struct call *c);
/* Where its server listens now: borrowed until the sandbox's last reference goes. NULL before the first sandbox_ready. */
const struct http_target *sandbox_target(struct sandbox *sb);

/*
 * One call of the container API: POST/GET/DELETE path with a JSON body (NULL: none; borrowed). 0 and *reply new (may be NULL: not wanted), or a negative errno
 * with the fault filled from the error body by the table of codes. Waits for sandbox_ready first.
 */
int sandbox_api(struct sandbox *sb, struct call *c, const char *method, const char *path,
	struct json_object *body, struct json_object **reply);
/* The same with raw bodies, for the routes of our own. type as in http_request. Status other than 200 is mapped as above. */
int sandbox_raw(struct sandbox *sb, struct call *c, const char *method, const char *path,
	const char *type, const void *body, size_t size, struct buf *reply);
/* Opens a stream on it (http.h); waits for sandbox_ready, not for the head. */
int sandbox_stream(struct sandbox *sb, struct call *c, const char *method, const char *path,
	const char *type, const void *body, size_t size, const struct http_stream_events *ev, void *arg,
	struct http_stream **out);

/*
 * What streams that were opened past the functions above have heard: something (any byte of an answer), or nothing since since_ms
 * (call_now_ms) and then err: -EHOSTUNREACH, -ETIMEDOUT or -ECONNRESET. The link's state follows as it does for calls.
 */
void sandbox_note_heard(struct sandbox *sb);
void sandbox_note_unheard(struct sandbox *sb, int64_t since_ms, int err);

/*
 * By when (call_now_ms) all is to be said to its server that the end of something takes: 4 s from now, or, once the mount ends, one time
 * for all that is said to all sandboxes, so that no server can hold the mount up.
 */
int64_t sandbox_end_by(struct sandbox *sb);

/* Everything written under workspace/ before now is in the sandbox when it returns 0; else the errno of the file that could not be sent, with a fault. */
int sandbox_barrier(struct sandbox *sb, struct call *c);
/* Nothing cached before now is served unless it was checked again. Returns when the kernel was told. */
void sandbox_invalidate(struct sandbox *sb);

/* Fault of the newest failure that a person must know (ctl/error). */
void sandbox_note_fault(struct sandbox *sb, const struct fault *f);
void sandbox_last_fault(struct sandbox *sb, struct fault *copy);

/* What ctl/status shows; never sends a request. */
struct sandbox_status {
	enum sandbox_state state;
	char id[64];
	char boot[40];         /* hex; empty: unknown */
	struct timespec since; /* of the state */
	char network[128];     /* a word and, after ": ", why */
};
void sandbox_get_status(struct sandbox *sb, struct sandbox_status *out);
/* The same, and into detail a sentence on the state, e.g. pid and path of who uses it; may stay empty. */
void sandbox_describe_status(struct sandbox *sb, struct sandbox_status *out, struct buf *detail);
/* Is there a server that could be asked, without starting one? Of one that this mount would start: has it been? Asks nobody. */
bool sandbox_has_server(struct sandbox *sb);
/* True if the server at the other end is known to be another than when boot was noted (hex from sandbox_get_status). */
bool sandbox_replaced_since(struct sandbox *sb, const char *boot);

/* Bytes not yet in the sandbox, as sync lines (sandboxfs-ctl(5)); flush and retry push them. */
void sandbox_describe_sync(struct sandbox *sb, struct buf *out);
int sandbox_retry(struct sandbox *sb, struct call *c, const char *path); /* NULL: all */
void sandbox_accept(struct sandbox *sb); /* goes on with the one that answers now */
int sandbox_discard(
	struct sandbox *sb, struct call *c, const char *path); /* NULL: all; path below workspace/ */
void sandbox_drop_caches(struct sandbox *sb);

/* --- for the file tree, which is above this room --- */

/* How this room reaches the files that are open or unsent. All may be called from any thread. */
struct sandbox_files {
	int (*barrier)(void *files, struct call *c);
	void (*invalidate)(void *files);
	void (*invalidate_soon)(void *files); /* the same, on a thread that answers no request */
	void (*describe_sync)(void *files, struct buf *out);
	int (*retry)(void *files, struct call *c, const char *path);
	int (*discard)(void *files, struct call *c, const char *path);
	void (*drop_caches)(void *files);
	void (*end)(
		void *files); /* the mount ends, or it was destroyed: gives back what keeps the sandbox */
	void (*free)(void *files); /* at the sandbox's last put */
};
/* The first call per sandbox counts; returns what is set. */
void *sandbox_set_files(struct sandbox *sb, const struct sandbox_files *ops, void *files);
void *sandbox_files(struct sandbox *sb);
/*
 * One batch of the file protocol. mutates: it may be repeated only at the same server (-EIO if that is gone and it may have been done). changes: it
 * writes; -ESTALE with a fault once another sandbox answers in place of the one that was there, until sandbox_accept.
 */
int sandbox_batch(struct sandbox *sb, struct call *c, bool mutates, bool changes, const void *body,
	size_t size, struct buf *reply);
/* What a reply of the file protocol says of its server. */
void sandbox_note_boot(
	struct sandbox *sb, const uint8_t boot[16], uint64_t workspace_ino, uint64_t avail);
/* Bytes still free in workspace/ as last heard; UINT64_MAX: not known. */
uint64_t sandbox_avail(struct sandbox *sb);
/* It was destroyed: nothing of it is to be reached any more. */
bool sandbox_gone(struct sandbox *sb);

/*
 * What the rooms above keep per sandbox (runs, drafts of processes, relays): made once by make(sb), the same for every later
 * caller with the same key (the address of a static object of the room). NULL: out of memory.
 * stop (may be NULL) ends its threads, listeners and files once the sandbox is destroyed: on a thread that answers no request, while handlers
 * may still use the data. release frees it at the mount's end (before the server of a sandbox that runs is stopped), stopped before or not.
 */
void *sandbox_attach(struct sandbox *sb, const void *key, void *(*make)(struct sandbox *sb),
	void (*stop)(void *data), void (*release)(void *data));

/*
 * A URL for a port that others can open, where the server makes such and the mount asks for them: 0 and *url new; -ENOTSUP without a
 * fault where not. title, token: may be NULL.
 */
int sandbox_expose(struct sandbox *sb, struct call *c, uint16_t port, const char *title,
	const char *token, char **url);
int sandbox_unexpose(struct sandbox *sb, struct call *c, uint16_t port);

/* --- sleep (sandbox_idle.c) --- */

enum { SANDBOX_SLEEP_AFTER_MS = 600 * 1000 };

struct sandbox_sleep {
	bool keepalive;   /* it is never let go of */
	int64_t after_ms; /* without a use here */
	int64_t in_ms;    /* from now, as things are; -1: it is in use, or not started */
};

/* Something that lasts and uses it begins (1) or has ended (-1). */
void sandbox_use(struct sandbox *sb, int more);
/* Do sandboxes of its server sleep? Where not, the settings have no effect. */
bool sandbox_sleeps(const struct sandbox *sb);
void sandbox_sleep_get(struct sandbox *sb, struct sandbox_sleep *out);
/* NULL, 0: as it is. */
void sandbox_sleep_set(struct sandbox *sb, const bool *keepalive, int64_t after_ms);

#endif
