/*
 * Inside of the HTTP client: what http.c (what others call) and http_loop.c (the thread that owns curl) show each other. Nobody else
 * includes it.
 */
#ifndef SBX_HTTP_IMPL_H
#define SBX_HTTP_IMPL_H

#include <curl/curl.h>
#include <pthread.h>

#include "http.h"

enum { MAX_EXCHANGES = 64, SPARE_HANDLES = 32 };

enum order { ORDER_START = 1, ORDER_CANCEL = 2, ORDER_RESUME = 4 };

/* One transfer: an exchange (call set) or a stream (events set). */
struct http_stream {
	struct http *http;
	CURL *easy; /* loop thread; NULL while it waits its turn */
	struct curl_slist *headers;
	int64_t timeout_ms, began_ms, last_activity_ms; /* loop thread */
	curl_off_t moved;
	char error[CURL_ERROR_SIZE];

	const struct http_target *target;
	atomic_int *running; /* NULL: not counted, or not any more */
	char *method, *url, *type;
	const void *body;
	size_t size;
	void *body_copy; /* of streams */

	/* an exchange */
	struct call *call;
	struct http_reply *reply;
	size_t max_reply;
	bool too_big;
	size_t head;    /* loop thread: the bytes of all its headers */
	bool head_done; /* loop thread: the line after the last header has come */

	/* a stream */
	const struct http_stream_events *events;
	void *arg;
	bool status_told;
	bool paused; /* loop thread: it waits for http_stream_resume, and is not silent */

	/* under http.lock */
	unsigned orders;
	uint64_t number; /* in the order of their starts */
	bool queued;     /* is in the list of orders */
	bool finished;   /* no order is taken any more */
	bool done;       /* the loop will not touch it again (of an exchange: under its call's lock) */
	int result;      /* likewise */
	struct http_stream *next_order;
	/* loop thread: all running or waiting transfers */
	struct http_stream *next, *prev;
};

struct http {
	CURLM *multi;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a stream is done */
	struct http_stream *orders, **orders_tail;
	const struct http_target *abort; /* exchanges with it up to abort_last are to end */
	int abort_err;
	uint64_t abort_last;
	uint64_t last; /* number */
	bool stop;
	uint64_t requests, sent, received;

	/* loop thread */
	struct http_stream *active; /* list of all transfers */
	unsigned exchanges;         /* of these that run */
	CURL *spare[SPARE_HANDLES];
	unsigned spares;
};

/* The loop's thread: until h->stop, then it ends every transfer. */
void *http_loop(void *http);

#endif
