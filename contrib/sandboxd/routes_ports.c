/*
 * port-watch: waits until something answers on a port. Owns each watch's state; a try holds the connection's thread.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "json_make.h"
#include "net.h"
#include "routes.h"
#include "text.h"

enum { TRY_MS = 5000, INTERVAL_MIN = 100, INTERVAL_MAX = 10000, STATUS_LINE_MAX = 256 };

struct port_watch {
	struct stream stream; /* first: the glue knows it by this */
	uint16_t port;
	bool http;
	char *path;
	int64_t status_min, status_max, interval;
	char *process_id;
	bool begun;
};

static struct json_object *event_new(struct port_watch *w, const char *type)
{
	struct json_object *o = json_object_new_object();
	json_add(o, "type", json_object_new_string(type));
	json_add(o, "port", json_object_new_int(w->port));
	return o;
}

/* Sends the request and reads the status line. The status, or a negative errno. */
static int ask_status(struct port_watch *w, int fd, int64_t deadline)
{
	struct server *server = w->stream.server;
	AUTO_BUF request = BUF_INIT;
	buf_printf(&request,
		"GET %s HTTP/1.1\r\nHost: localhost:%u\r\nAccept: */*\r\nUser-Agent: sandboxd\r\n"
		"Connection: close\r\n\r\n",
		w->path, w->port);
	if (buf_error(&request) < 0)
		return -ENOMEM;
	for (size_t sent = 0; sent < request.size;) {
		ssize_t n = send(fd, request.data + sent, request.size - sent, MSG_NOSIGNAL);
		if (n > 0)
			sent += (size_t)n;
		else if (errno != EAGAIN && errno != EINTR)
			return -errno;
		else if (net_wait(server, w->stream.client, fd, POLLOUT, deadline) < 0)
			return -ETIMEDOUT;
	}
	char line[STATUS_LINE_MAX];
	size_t have = 0;
	while (have < sizeof line - 1 && !memchr(line, '\n', have)) {
		int err = net_wait(server, w->stream.client, fd, POLLIN, deadline);
		if (err < 0)
			return err;
		ssize_t n = recv(fd, line + have, sizeof line - 1 - have, 0);
		if (n == 0)
			break;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0)
			have += (size_t)n;
	}
	line[have] = '\0';
	int status;
	return sscanf(line, "HTTP/%*u.%*u %3d", &status) == 1 ? status : -EPROTO;
}

/* 1: ready (with *status in http mode), 0: not yet, -ECANCELED. */
static int try_once(struct port_watch *w, int *status)
{
	AUTO_FD int fd = -1;
	int64_t deadline = text_monotonic_ms() + TRY_MS;
	int err = net_connect_local(w->stream.server, w->stream.client, w->port, TRY_MS, &fd);
	if (err < 0)
		return err == -ECANCELED ? err : 0;
	if (!w->http)
		return 1;
	*status = ask_status(w, fd, deadline);
	if (*status == -ECANCELED)
		return *status;
	return *status >= w->status_min && *status <= w->status_max;
}

/* Has the process gone that is to listen? 1: the last event is in out, 0: go on, or a negative errno. */
static int check_process(struct port_watch *w, struct buf *out)
{
	if (!w->process_id)
		return 0;
	struct command *c = commands_find(w->stream.server->commands, w->process_id);
	struct json_object *o = NULL;
	if (!c || command_wait_started(c) < 0) {
		o = event_new(w, "error");
		json_add(o, "error", json_object_new_string("Process not found"));
	} else if (command_ended(c)) {
		o = event_new(w, "process_exited");
		json_add(o, "exitCode", json_object_new_int(c->exit_code));
	}
	commands_put(c);
	if (!o)
		return 0;
	return event_add(out, o) < 0 ? -ENOMEM : 1;
}

static int watch_next(struct stream *s, struct buf *out)
{
	struct port_watch *w = (struct port_watch *)s;
	if (!w->begun) {
		w->begun = true;
		return event_add(out, event_new(w, "watching")) < 0 ? -ENOMEM : 1;
	}
	int status = 0;
	int ready = try_once(w, &status);
	if (ready < 0)
		return ready;
	if (ready) {
		struct json_object *o = event_new(w, "ready");
		if (w->http)
			json_add(o, "statusCode", json_object_new_int(status));
		return event_add(out, o) < 0 ? -ENOMEM : 0;
	}
	int gone = check_process(w, out);
	if (gone)
		return gone < 0 ? gone : 0;
	/* Nothing is ready on no descriptor: this waits for the interval, the stop or the client's leave. */
	int err = net_wait(s->server, s->client, -1, 0, text_monotonic_ms() + w->interval);
	return err == -ETIMEDOUT ? 1 : err;
}

static void watch_release(struct stream *s)
{
	struct port_watch *w = (struct port_watch *)s;
	free(w->path);
	free(w->process_id);
	free(w);
}

/* What may stand in a request line. */
static bool path_is_good(const char *path, size_t n)
{
	if (!n || path[0] != '/')
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)path[i] <= ' ' || path[i] == 0x7f)
			return false;
	return true;
}

enum MHD_Result route_port_watch(struct request *r)
{
	enum MHD_Result result;
	if (!request_json(r, false, &result))
		return result;
	int64_t port = 0;
	size_t path_size = 1, id_size = 0;
	const char *path = json_text(r->json, "path", &path_size);
	const char *mode = json_text(r->json, "mode", NULL);
	const char *id = json_text(r->json, "processId", &id_size);
	if (!json_number(r->json, "port", &port) || port < 1 || port > 65535)
		return reply_error(
			r, ERR_INVALID_PORT, NULL, "port.watch", "Invalid port: it must be from 1 to 65535");
	if (path && !path_is_good(path, path_size))
		return reply_error(r, ERR_VALIDATION, NULL, "port.watch",
			"Invalid path: it must begin with / and hold no blanks");
	struct port_watch *w = calloc(1, sizeof *w);
	if (!w)
		return reply_error(r, ERR_INTERNAL, NULL, "port.watch", "out of memory");
	w->stream = (struct stream){.next = watch_next, .release = watch_release};
	w->port = (uint16_t)port;
	w->http = !mode || strcmp(mode, "tcp") != 0;
	w->path = strdup(path ? path : "/");
	w->process_id = id ? strdup(id) : NULL;
	if (!json_number(r->json, "statusMin", &w->status_min))
		w->status_min = 200;
	if (!json_number(r->json, "statusMax", &w->status_max))
		w->status_max = 399;
	if (!json_number(r->json, "interval", &w->interval))
		w->interval = 500;
	w->interval = w->interval < INTERVAL_MIN   ? INTERVAL_MIN
				  : w->interval > INTERVAL_MAX ? INTERVAL_MAX
											   : w->interval;
	if (!w->path || (id && !w->process_id)) {
		watch_release(&w->stream);
		return reply_error(r, ERR_INTERNAL, NULL, "port.watch", "out of memory");
	}
	return reply_stream(r, "text/event-stream", &w->stream);
}
