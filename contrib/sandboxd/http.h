/*
 * HTTP for the routes: a request with its whole body, and the ways to answer it. Owns the glue to
 * libmicrohttpd (one thread per connection, so a handler may block) and the
 * limits on what comes in. Knows no route: it asks route_find (routes.h).
 */
#ifndef SANDBOXD_HTTP_H
#define SANDBOXD_HTTP_H

#include <microhttpd.h>
#include <stdbool.h>

#include "buf.h"
#include "errors.h"
#include "server.h"

struct json_object;
struct route;

enum { HTTP_BODY_MAX = 128 << 20, HTTP_JSON_DEPTH = 32, HTTP_TICK_MS = 1000 };

struct request {
	struct server *server;
	struct MHD_Connection *connection;
	int client; /* the client's socket, borrowed: only to see whether it hung up */
	const struct route *route;
	char *id; /* the variable part of the path, or NULL */
	struct buf body;
	size_t discarded; /* bytes of a body beyond the limit */
	/* What a route that takes its body as it comes keeps meanwhile (routes.h); released with the request. */
	void *feed;
	void (*feed_release)(void *feed);
	struct json_object *json;
};

/* Starts serving on the listening socket (taken on success). NULL: it could not. */
struct MHD_Daemon *http_start(struct server *server, int listener);

/* Waits until every request under way has its answer, or the deadline (CLOCK_MONOTONIC ms). */
void http_drain(struct server *server, int64_t deadline_ms);

/* The value of a query parameter, or NULL. Borrowed. */
const char *request_query(struct request *r, const char *name);
/*
 * Parses the body. True, and r->json is an object ({} if the body is another JSON value), or false and *out is the answer that was
 * given: 500 INTERNAL_ERROR, or 400 VALIDATION_FAILED where `strict`.
 */
bool request_json(struct request *r, bool strict, enum MHD_Result *out);
/* A string member: its bytes and length, or NULL if it is not there or no string. Borrowed. */
const char *json_text(struct json_object *o, const char *name, size_t *n);
/* A number member as integer: true and *v, or false. Fractions are cut. */
bool json_number(struct json_object *o, const char *name, int64_t *v);
bool json_flag(struct json_object *o, const char *name, bool otherwise);

/* Has the client gone? */
bool client_gone(int client);

/* --- answers: each is given once --- */

/* {"success":true}; timestamps are added by reply_json. NULL: out of memory (the reply functions take NULL and say so). */
struct json_object *answer_new(void);
enum MHD_Result reply_json(struct request *r, unsigned status, struct json_object *o /* taken */);
enum MHD_Result reply_text(struct request *r, unsigned status, const char *text);
/* Takes the content of b. headers: name, value, ..., NULL; or NULL. */
enum MHD_Result reply_bytes(struct request *r, unsigned status, const char *type, struct buf *b,
	const char *const *headers);
/* context is taken and may be NULL; operation may be NULL. */
enum MHD_Result reply_error(struct request *r, enum error_code code, struct json_object *context,
	const char *operation, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/*
 * An answer of unknown length. next appends what there is to out, waiting up to HTTP_TICK_MS for it:
 * 1: go on (nothing appended is fine), 0: that was the end, negative: cut the connection.
 */
struct stream {
	int (*next)(struct stream *s, struct buf *out);
	void (*release)(struct stream *s);
	struct server *server;
	int client;
	struct buf pending;
	size_t sent;
	bool over;
};
/* Takes s, also on failure. */
enum MHD_Result reply_stream(struct request *r, const char *type, struct stream *s);
/* 101; more: further headers, or NULL. The handler gets the connection, on its own thread. */
enum MHD_Result reply_upgrade(struct request *r, const char *protocol, const char *const *more,
	MHD_UpgradeHandler handler, void *arg);
/* Appends one event: `data: {json}` and an empty line. o is taken; 0 or -ENOMEM. */
int event_add(struct buf *out, struct json_object *o);

#endif
