/*
 * HTTP client: one libcurl multi loop in one thread, with blocking exchanges for the workers on top
 * and streamed bodies as callbacks. Owns all curl handles and their thread. Knows nothing of sandboxes; a target says where to go.
 */
#ifndef SBX_HTTP_H
#define SBX_HTTP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "buf.h"
#include "call.h"

struct http; /* the loop */

int http_new(struct http **out);
void http_free(struct http *h); /* ends every exchange with -ECANCELED */

/* Where requests go. Immutable; nobody counts who uses it: whoever has made it keeps it until all that may be asked there has ended. */
struct http_target {
	char *base; /* "http://HOST:PORT" without trailing slash; for a socket "http://localhost" */
	char *unix_path; /* NULL: TCP */
	char *token;     /* NULL: none */
	/* Borrowed: one more for each request that runs, from the call until it has ended (not: until it is closed). NULL: nobody counts */
	atomic_int *running;
};

/* Does it lead to this host? What is said to it, the token above all, is no proxy's to hear. */
bool http_target_is_here(const struct http_target *t);

struct http_request {
	const struct http_target *target;
	const char *method; /* "GET", "POST", "DELETE" */
	const char *path;   /* with query, encoded */
	const char *type;   /* content type of the body; NULL: none */
	const void *body;   /* borrowed until the exchange has ended */
	size_t size;
	/* Gives up when no byte moved for so long (and nobody has paused it); an exchange also when on the whole less than 4 KiB a second did. <0: never */
	int64_t timeout_ms;
	size_t max_reply; /* a longer body ends with -EFBIG; 0: 64 MiB */
};

struct http_reply {
	int status;
	int64_t retry_after_ms; /* as it asks; 0: it does not */
	struct buf body;        /* buf_release it */
};

/*
 * One exchange; waits for its end. 0 when an answer with any status arrived. Else -EINTR (cancelled; the
 * request may have been done), -ETIMEDOUT, -EHOSTUNREACH (no connection could be made: not done), -ECONNRESET (broken midway: may have been done),
 * -EPROTO, -EFBIG, -ENOMEM, -ECANCELED (http_free). Does not fill the fault.
 */
int http_exchange(
	struct http *h, struct call *c, const struct http_request *r, struct http_reply *out);

/* Ends every exchange (not the streams) with that target that has begun, running or waiting its turn, with err. Does not wait for it. */
void http_abort(struct http *h, const struct http_target *target, int err);

/* A streamed answer. Callbacks run on the loop's thread, one at a time per stream, and must not block. */
struct http_stream;
struct http_stream_events {
	/* The head has arrived. For a status other than 200, what follows goes to on_data as well. */
	void (*on_status)(void *arg, int status);
	/* Borrowed bytes. Return false to pause (these bytes come again after http_stream_resume). */
	bool (*on_data)(void *arg, const void *p, size_t n);
	/* The end; the last call. 0: the body ended properly; else as http_exchange. */
	void (*on_end)(void *arg, int err);
	/*
	 * Not NULL: the body is what this gives, as it comes (and the request's own is not sent). >0 bytes into p, 0 the end, -EAGAIN nothing
	 * yet (http_stream_resume asks again), another error breaks the request off.
	 */
	ssize_t (*on_pull)(void *arg, void *p, size_t n);
};
/* Starts it and returns at once: 0 and *out new, or an error (no callback was or will be called). r->body is copied. */
int http_stream_open(struct http *h, const struct http_request *r,
	const struct http_stream_events *ev, void *arg, struct http_stream **out);
void http_stream_resume(struct http_stream *s);
/* Ends it, if it has not ended; when it returns no callback runs or will run. Not from a callback. Frees s. */
void http_stream_close(struct http_stream *s);

/* Figures for ctl/stats: requests sent so far, bytes out, bytes in. */
void http_counts(struct http *h, uint64_t *requests, uint64_t *sent, uint64_t *received);

#endif
