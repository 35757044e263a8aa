/*
 * The glue to libmicrohttpd: collects bodies, finds the route, makes answers. Owns the daemon's options; no state
 * of its own beyond each request. A thread belongs to each connection, so handlers
 * and streams may block, in ticks, looking after each whether the client is still there.
 */
#include "http.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "json_make.h"
#include "routes.h"
#include "text.h"
#include "timed.h"

enum {
	CONNECTIONS = 4096,
	THREAD_STACK = 256 << 10,
	CONNECTION_MEMORY = 128 << 10,
	STREAM_BLOCK = 64 << 10,
	/* So much of a body that is too large is read and thrown away, so that the client sees the answer. */
	DISCARD_MAX = 128 << 20,
	/* Up to here the announced size of a body is believed before it has come. */
	FRESH_BODY_MAX = 32 << 20
};

/* --- requests --- */

const char *request_query(struct request *r, const char *name)
{
	return MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
}

bool client_gone(int client)
{
	int domain = AF_INET;
	socklen_t size = sizeof domain;
	struct pollfd p = {.fd = client, .events = POLLRDHUP};
	if (poll(&p, 1, 0) <= 0)
		return false;
	if (p.revents & (POLLHUP | POLLERR | POLLNVAL))
		return true;
	/*
	 * TCP does not tell a client that has gone from one that has only nothing more to say, and the first is what happens. A local
	 * socket does: it hangs up.
	 */
	return getsockopt(client, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || domain != AF_UNIX;
}

bool request_json(struct request *r, bool strict, enum MHD_Result *out)
{
	enum error_code code = strict ? ERR_VALIDATION : ERR_INTERNAL;
	struct json_tokener *tokener = json_tokener_new_ex(HTTP_JSON_DEPTH);
	if (!tokener) {
		*out = reply_error(r, ERR_INTERNAL, NULL, NULL, "out of memory");
		return false;
	}
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	struct json_object *o =
		json_tokener_parse_ex(tokener, r->body.data ? r->body.data : "", (int)r->body.size);
	enum json_tokener_error err = json_tokener_get_error(tokener);
	size_t end = json_tokener_get_parse_end(tokener);
	const char *why = err == json_tokener_continue ? "unexpected end of JSON input"
												   : json_tokener_error_desc(err);
	/* A number ends only with what follows it: json-c waits for more. */
	if (err == json_tokener_continue && r->body.size) {
		o = json_tokener_parse_ex(tokener, "", -1);
		err = json_tokener_get_error(tokener);
		end = r->body.size;
	}
	json_tokener_free(tokener);
	if (err == json_tokener_success)
		while (end < r->body.size && strchr(" \t\r\n", r->body.data[end]) && r->body.data[end])
			end++;
	if (err != json_tokener_success || end < r->body.size || !o) {
		json_object_put(o);
		struct json_object *context = json_object_new_object();
		if (!strict)
			json_add(context, "stack", json_object_new_string(""));
		*out = reply_error(r, code, context, NULL, "Failed to parse request body: %s",
			err != json_tokener_success ? why
			: end < r->body.size        ? "unexpected data after JSON value"
										: "body is null");
		return false;
	}
	if (!json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		o = json_object_new_object();
	}
	r->json = o;
	if (!o)
		*out = reply_json(r, 500, NULL);
	return o;
}

const char *json_text(struct json_object *o, const char *name, size_t *n)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	if (n)
		*n = (size_t)json_object_get_string_len(v);
	return json_object_get_string(v);
}

bool json_number(struct json_object *o, const char *name, int64_t *v)
{
	struct json_object *n;
	if (!json_object_object_get_ex(o, name, &n))
		return false;
	if (json_object_is_type(n, json_type_int)) {
		*v = json_object_get_int64(n);
		return true;
	}
	if (!json_object_is_type(n, json_type_double))
		return false;
	double d = json_object_get_double(n);
	if (!(d > -9e15 && d < 9e15))
		return false;
	*v = (int64_t)d;
	return true;
}

bool json_flag(struct json_object *o, const char *name, bool otherwise)
{
	struct json_object *v;
	if (!json_object_object_get_ex(o, name, &v) || !json_object_is_type(v, json_type_boolean))
		return otherwise;
	return json_object_get_boolean(v);
}

/* --- answers --- */

static enum MHD_Result reply(struct request *r, unsigned status, struct MHD_Response *response,
	const char *type, const char *const *headers)
{
	if (!response)
		return MHD_NO;
	enum MHD_Result ok = MHD_YES;
	if (type)
		ok = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	for (; ok == MHD_YES && headers && headers[0]; headers += 2)
		ok = MHD_add_response_header(response, headers[0], headers[1]);
	if (ok == MHD_YES)
		ok = MHD_queue_response(r->connection, status, response);
	MHD_destroy_response(response);
	return ok;
}

struct json_object *answer_new(void)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "success", json_object_new_boolean(true));
	return o;
}

enum MHD_Result reply_json(struct request *r, unsigned status, struct json_object *o)
{
	json_add(o, "timestamp", text_time(NULL));
	size_t n;
	const char *text = json_text_of(o, &n);
	enum MHD_Result result;
	if (!text)
		result = reply_text(r, 500, "out of memory\n");
	else
		result = reply(r, status,
			MHD_create_response_from_buffer(n, (void *)text, MHD_RESPMEM_MUST_COPY),
			"application/json", NULL);
	json_object_put(o);
	return result;
}

enum MHD_Result reply_text(struct request *r, unsigned status, const char *text)
{
	return reply(r, status,
		MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_MUST_COPY),
		"text/plain;charset=utf-8", NULL);
}

enum MHD_Result reply_bytes(
	struct request *r, unsigned status, const char *type, struct buf *b, const char *const *headers)
{
	size_t n = b->size;
	char *data = buf_steal(b);
	if (!data)
		return reply_text(r, 500, "out of memory\n");
	struct MHD_Response *response = MHD_create_response_from_buffer(n, data, MHD_RESPMEM_MUST_FREE);
	if (!response)
		free(data);
	return reply(r, status, response, type, headers);
}

/* The answer to a body that nobody reads: the connection ends with it. */
static enum MHD_Result reply_unread(struct request *r, unsigned status)
{
	static const char *const closing[] = {MHD_HTTP_HEADER_CONNECTION, "close", NULL};
	return reply(
		r, status, MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT), NULL, closing);
}

enum MHD_Result reply_error(struct request *r, enum error_code code, struct json_object *context,
	const char *operation, const char *fmt, ...)
{
	AUTO_BUF message = BUF_INIT;
	va_list ap;
	va_start(ap, fmt);
	buf_vprintf(&message, fmt, ap);
	va_end(ap);
	struct json_object *o = json_object_new_object();
	json_add(o, "code", json_object_new_string(error_name(code)));
	json_add(o, "message", text_json(message.data ? message.data : "", message.size));
	json_add(o, "context", context ? context : json_object_new_object());
	if (operation)
		json_add(o, "operation", json_object_new_string(operation));
	json_add(o, "httpStatus", json_object_new_int((int)error_status(code)));
	return reply_json(r, error_status(code), o);
}

int event_add(struct buf *out, struct json_object *o)
{
	size_t n = 0;
	const char *text = json_text_of(o, &n);
	if (text) {
		buf_str(out, "data: ");
		buf_add(out, text, n);
		buf_str(out, "\n\n");
	}
	json_object_put(o);
	return text ? buf_error(out) : -ENOMEM;
}

/* --- streams --- */

static ssize_t stream_read(void *arg, uint64_t position, char *to, size_t max)
{
	(void)position;
	struct stream *s = arg;
	while (s->sent == s->pending.size) {
		if (s->over)
			return MHD_CONTENT_READER_END_OF_STREAM;
		buf_clear(&s->pending);
		s->sent = 0;
		int more = s->next(s, &s->pending);
		if (more < 0 || buf_error(&s->pending) < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		s->over = !more;
		if (more && !s->pending.size &&
			(client_gone(s->client) || atomic_load(&s->server->stage) == STAGE_CLOSING))
			return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	size_t n = s->pending.size - s->sent;
	if (n > max)
		n = max;
	memcpy(to, s->pending.data + s->sent, n);
	s->sent += n;
	return (ssize_t)n;
}

static void stream_release(void *arg)
{
	struct stream *s = arg;
	buf_release(&s->pending);
	s->release(s);
}

enum MHD_Result reply_stream(struct request *r, const char *type, struct stream *s)
{
	static const char *const headers[] = {MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache", NULL};
	s->server = r->server;
	s->client = r->client;
	struct MHD_Response *response = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, s, stream_release);
	if (!response) {
		stream_release(s);
		return MHD_NO;
	}
	return reply(r, 200, response, type, headers);
}

enum MHD_Result reply_upgrade(struct request *r, const char *protocol, const char *const *more,
	MHD_UpgradeHandler handler, void *arg)
{
	struct MHD_Response *response = MHD_create_response_for_upgrade(handler, arg);
	if (response &&
		MHD_add_response_header(response, MHD_HTTP_HEADER_UPGRADE, protocol) != MHD_YES) {
		MHD_destroy_response(response);
		return MHD_NO;
	}
	return reply(r, MHD_HTTP_SWITCHING_PROTOCOLS, response, NULL, more);
}

/* --- from the daemon --- */

static struct request *request_new(struct server *server, struct MHD_Connection *connection)
{
	struct request *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->server = server;
	r->connection = connection;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	r->client = info ? info->connect_fd : -1;
	AUTO_UNLOCK(&server->requests_lock);
	server->requests++;
	return r;
}

static bool body_announced_too_large(struct MHD_Connection *connection)
{
	const char *length =
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
	return length && strtoull(length, NULL, 10) > HTTP_BODY_MAX;
}

static enum MHD_Result request_begin(struct request *r, const char *path, const char *method)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "DELETE", "OPTIONS", NULL};
	for (const char *const *m = methods;; m++) {
		if (!*m)
			return reply_text(r, 500, "Method not allowed\n");
		if (strcmp(*m, method) == 0)
			break;
	}
	r->route = route_find(method, path, &r->id);
	if (!route_body(r->route) && body_announced_too_large(r->connection))
		return reply_unread(r, MHD_HTTP_CONTENT_TOO_LARGE);
	return MHD_YES;
}

static enum MHD_Result request_body(struct request *r, const char *data, size_t n)
{
	if (r->discarded || r->body.size + n > HTTP_BODY_MAX) {
		buf_release(&r->body);
		r->discarded += n;
		return r->discarded > DISCARD_MAX ? MHD_NO : MHD_YES;
	}
	if (!r->body.capacity) {
		/* The announced size at once: growing step by step would move large bodies again and again. */
		const char *length = MHD_lookup_connection_value(
			r->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
		size_t size = length ? strtoull(length, NULL, 10) : 0;
		if (size && size <= FRESH_BODY_MAX && !buf_reserve(&r->body, size))
			return MHD_NO;
	}
	buf_add(&r->body, data, n);
	return buf_error(&r->body) < 0 ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path,
	const char *method, const char *version, const char *data, size_t *size, void **state)
{
	(void)version;
	struct request *r = *state;
	if (!r) {
		r = request_new(arg, connection);
		*state = r;
		return r ? request_begin(r, path, method) : MHD_NO;
	}
	if (*size) {
		route_body_handler *take = route_body(r->route);
		enum MHD_Result ok = take ? take(r, data, *size) : request_body(r, data, *size);
		*size = 0;
		return ok;
	}
	if (r->discarded)
		return reply_unread(r, MHD_HTTP_CONTENT_TOO_LARGE);
	if (!r->route)
		return reply_error(r, ERR_NOT_FOUND, NULL, NULL, "The requested endpoint was not found");
	return r->route->handle(r);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **state,
	enum MHD_RequestTerminationCode code)
{
	(void)arg;
	(void)connection;
	(void)code;
	struct request *r = *state;
	if (!r)
		return;
	*state = NULL;
	struct server *server = r->server;
	if (r->feed)
		r->feed_release(r->feed);
	json_object_put(r->json);
	buf_release(&r->body);
	free(r->id);
	free(r);
	AUTO_UNLOCK(&server->requests_lock);
	if (!--server->requests)
		pthread_cond_broadcast(&server->requests_over);
}

void http_drain(struct server *server, int64_t deadline_ms)
{
	AUTO_UNLOCK(&server->requests_lock);
	while (server->requests && timed_cond_wait(&server->requests_over, &server->requests_lock,
								   deadline_ms) != -ETIMEDOUT)
		continue;
}

struct MHD_Daemon *http_start(struct server *server, int listener)
{
	return MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
								MHD_USE_POLL | MHD_USE_ITC | MHD_ALLOW_UPGRADE,
		0, NULL, NULL, on_request, server, MHD_OPTION_LISTEN_SOCKET, listener,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS, MHD_OPTION_THREAD_STACK_SIZE,
		(size_t)THREAD_STACK, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
}
