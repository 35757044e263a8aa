/*
 * The container driver: one server that somebody else runs, at http://HOST:PORT or unix:/PATH, seen as one sandbox, `default`.
 * A sandboxd is gone to directly: a start only says where it listens. The official container server has no file protocol: a sandboxd
 * is brought in behind it and reached by a tunnel through one of its terminals (tunnel.h).
 */
#include <errno.h>
#include <json-c/json.h>
#include <nettle/base64.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/un.h>

#include "cleanup.h"
#include "driver.h"
#include "json_make.h"
#include "json_read.h"
#include "run_dir.h"
#include "token.h"
#include "tunnel.h"

static const char only[] = "default";

/* The official server's word for: in no session, a fresh shell. */
#define SESSIONLESS "__DISABLE_SESSION__"

enum { SCRIPT_MS = 60000, REPLY_MOST = 1 << 20 };

struct container {
	struct http_target target;
	struct http_target
		bare; /* the same without the token, which the official server would take for the name of a session */
	struct http *http;
	int64_t timeout_ms, start_ms;
	struct run_dir run;        /* open once a tunnel has been made */
	struct programs *programs; /* what a sandbox is brought */
};

static void container_close(void *state)
{
	struct container *k = state;
	if (!k)
		return;
	if (k->http)
		http_free(k->http);
	run_dir_close(&k->run);
	programs_free(k->programs);
	free(k->target.base);
	free(k->target.unix_path);
	token_free(k->target.token);
	free(k);
}

/* http://HOST[:PORT][/], HOST a name, an address, or [v6]: what curl is given must not hide a user, a query or another host. */
static int check_url(struct call *c, const char *url)
{
	static const char pattern[] =
		"^http://(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:[0-9]{1,5})?/?$";
	regex_t re;
	if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB))
		return -ENOMEM;
	int err = regexec(&re, url, 0, NULL, 0);
	regfree(&re);
	if (err)
		return call_fault(
			c, EINVAL, NULL, "%s: a container is named http://HOST:PORT or unix:/PATH", url);
	const char *colon = strrchr(url + strlen("http://"), ':');
	if (colon && !strchr(colon, ']')) {
		long port = strtol(colon + 1, NULL, 10);
		if (port < 1 || port > 65535)
			return call_fault(c, EINVAL, NULL, "%s: a port is a number from 1 to 65535", url);
	}
	return 0;
}

static int set_address(struct container *k, struct call *c, const char *server)
{
	struct sockaddr_un address;
	if (strncmp(server, "unix:", 5)) {
		int err = check_url(c, server);
		if (err)
			return err;
		k->target.base = strdup(server);
		if (k->target.base && k->target.base[strlen(k->target.base) - 1] == '/')
			k->target.base[strlen(k->target.base) - 1] = 0;
		return k->target.base ? 0 : -ENOMEM;
	}
	const char *path = server + 5;
	if (*path != '/')
		return call_fault(
			c, EINVAL, NULL, "%s: give the socket's absolute path: unix:/PATH", server);
	if (strlen(path) >= sizeof address.sun_path)
		return call_fault(c, ENAMETOOLONG, NULL, "%s: a socket's path has room for %zu bytes",
			server, sizeof address.sun_path - 1);
	k->target.unix_path = strdup(path);
	k->target.base = strdup("http://localhost");
	return k->target.unix_path && k->target.base ? 0 : -ENOMEM;
}

static int container_open(const struct options *o, struct call *c, void **state)
{
	struct container *k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	k->run.lock = -1;
	k->timeout_ms = o->timeout_ms;
	k->start_ms = o->start_ms;
	int err = set_address(k, c, o->server);
	/* Only one that is named for it: to the official server a token is the name of a session. */
	if (!err)
		err = token_read(o, c, false, &k->target.token);
	if (!err)
		err = http_new(&k->http);
	if (!err)
		err = programs_new(&k->programs);
	k->bare = k->target;
	k->bare.token = NULL;
	if (err) {
		container_close(k);
		return err;
	}
	*state = k;
	return 0;
}

static int container_list(void *state, bool (*cb)(const char *name, void *arg), void *arg)
{
	(void)state;
	cb(only, arg); /* whether it wants more does not matter: there is one */
	return 0;
}

static int container_probe(void *state, const char *name)
{
	(void)state;
	return strcmp(name, only) ? -ENOENT : 0;
}

static int container_create(void *state, struct call *c, const char *name)
{
	(void)state;
	return call_fault(c, EPERM, NULL,
		"%s: this server is one container, which shows as `default`; others cannot be made here",
		name);
}

static int container_destroy(void *state, struct call *c, const char *name)
{
	(void)state;
	return call_fault(
		c, EPERM, NULL, "%s: this container is not ours to end; end it where it was started", name);
}

/* --- the official server --- */

/* One exchange with a JSON object (which it puts; NULL: out of memory): 0 and its status, and *reply (new, NULL: no JSON) if that is asked for. */
static int ask(struct container *k, struct call *c, const char *method, const char *path,
	struct json_object *body, int64_t timeout_ms, int *http_status, struct json_object **reply)
{
	struct http_reply got = {.body = BUF_INIT};
	const char *text = json_text_of(body, NULL);
	struct http_request r = {.target = &k->bare,
		.method = method,
		.path = path,
		.type = "application/json",
		.body = text,
		.size = text ? strlen(text) : 0,
		.timeout_ms = timeout_ms,
		.max_reply = REPLY_MOST};
	int err = !text ? -ENOMEM : http_exchange(k->http, c, &r, &got);
	json_object_put(body);
	buf_char(&got.body, 0);
	if (!err && buf_error(&got.body))
		err = -ENOMEM;
	if (!err)
		*http_status = got.status;
	if (!err && reply)
		*reply = json_little(got.body.data); /* NULL: it is none */
	buf_release(&got.body);
	return err;
}

/* Is it a server without the file protocol? 1, 0 (also what cannot be told: who asks next says why), or an error with a fault. */
static int is_official(struct container *k, struct call *c)
{
	int status = 0;
	int err = ask(k, c, "POST", "/api/sandboxfs/batch", json_object_new_object(), k->timeout_ms,
		&status, NULL);
	if (err == -ETIMEDOUT)
		return call_fault(c, ETIMEDOUT, NULL,
			"default: no answer after %lld s; -o timeout= waits longer",
			(long long)k->timeout_ms / 1000);
	return err == -EINTR ? err : !err && status == 404;
}

static void add(struct json_object *o, const char *name, const char *value)
{
	json_add(o, name, json_object_new_string(value));
}

static int64_t time_left(int64_t deadline)
{
	int64_t left = deadline - call_now_ms();
	return left < 0 ? 0 : left < SCRIPT_MS ? left : SCRIPT_MS;
}

static int link_run(
	void *arg, struct call *c, int64_t deadline, const char *script, struct buf *out, int *status)
{
	struct container *k = arg;
	struct json_object *body = json_object_new_object(), *reply = NULL, *value;
	AUTO_BUF command = BUF_INIT;
	int http_status = 0;
	buf_str(&command, "sh -c ");
	buf_shell_quote(&command, script);
	if (buf_error(&command)) {
		json_object_put(body);
		return -ENOMEM;
	}
	add(body, "command", command.data);
	add(body, "sessionId", SESSIONLESS);
	int err = ask(k, c, "POST", "/api/execute", body, time_left(deadline), &http_status, &reply);
	/* Members may be there and null, which json-c gives as NULL. */
	if (!err && json_object_object_get_ex(reply, "exitCode", &value) &&
		json_object_is_type(value, json_type_int)) {
		*status = json_object_get_int(value);
		if (json_object_object_get_ex(reply, "stdout", &value) &&
			json_object_is_type(value, json_type_string))
			buf_str(out, json_object_get_string(value));
		err = buf_error(out);
	} else if (!err && http_status == 404 && !k->target.unix_path) {
		err = call_fault(c, ENOTSUP, NULL,
			"no container's server is at %s (404); if a sandbox bridge is there, mount %s/v1",
			k->target.base, k->target.base);
	} else if (!err) {
		err = call_fault(c, http_status == 503 ? EAGAIN : EIO, NULL,
			"default: the server answers %d to a command", http_status);
	}
	json_object_put(reply);
	return err;
}

static int link_put(
	void *arg, struct call *c, int64_t deadline, const void *p, size_t size, char **path)
{
	struct container *k = arg;
	AUTO_BUF name = BUF_INIT;
	AUTO_FREE char *text = malloc(BASE64_ENCODE_RAW_LENGTH(size) + 1);
	uint64_t random;
	int status = 0;
	if (!text || getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
		return -ENOMEM;
	base64_encode_raw(text, size, p);
	text[BASE64_ENCODE_RAW_LENGTH(size)] = 0;
	buf_printf(&name, "/tmp/.sandboxfs-%016llx.gz", (unsigned long long)random);
	if (buf_error(&name))
		return -ENOMEM;
	struct json_object *body = json_object_new_object();
	add(body, "path", name.data);
	add(body, "content", text);
	add(body, "encoding", "base64");
	add(body, "sessionId", SESSIONLESS);
	int err = ask(k, c, "POST", "/api/write", body, time_left(deadline), &status, NULL);
	if (!err && status != 200)
		err = call_fault(c, EIO, NULL, "default: the server answers %d to a file", status);
	if (!err && !(*path = buf_steal(&name)))
		err = -ENOMEM;
	return err;
}

static char *link_terminal(void *arg, const char *session, const char *program)
{
	(void)arg;
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "/ws/pty?sessionId=%s&shell=%s&cols=80&rows=24", session, program);
	return buf_steal(&path);
}

static void link_leave(void *arg, struct call *c, const char *session)
{
	struct json_object *body = json_object_new_object();
	int status = 0;
	add(body, "sessionId", session);
	/* One that stays ends with the container. */
	(void)ask(arg, c, "POST", "/api/session/delete", body, TUNNEL_LEAVE_MS, &status, NULL);
}

/* A sandboxd behind it: *path (new) is where it listens on this side. */
static int dig(struct container *k, struct call *c, struct tunnel **tunnel, char **path)
{
	struct tunnel_way way = {.target = &k->bare,
		.terminal = link_terminal,
		.leave = link_leave,
		.carrier = {link_run, link_put, k, k->programs},
		.start_ms = k->start_ms,
		.arg = k};
	int err = k->run.path ? 0 : run_dir_open(&k->run, c);
	if (!err)
		err = tunnel_open(c, &way, &k->run, tunnel);
	if (!err && !(*path = strdup(tunnel_socket(*tunnel)))) {
		tunnel_close(steal(*tunnel), call_now_ms() + TUNNEL_LEAVE_MS);
		err = -ENOMEM;
	}
	return err;
}

/* --- start and stop --- */

static unsigned tunnel_ways(void *data)
{
	return tunnel_wires(data);
}

static int container_start(void *state, struct call *c, const char *name, void (*died)(void *arg),
	void *arg, struct driver_instance *out)
{
	(void)died; /* nobody tells of a container's end: requests find out */
	(void)arg;
	struct container *k = state;
	struct tunnel *tunnel = NULL;
	AUTO_FREE char *path = NULL;
	if (strcmp(name, only))
		return -ENOENT;
	int official = is_official(k, c);
	int err = official > 0 ? dig(k, c, &tunnel, &path) : official;
	if (err)
		return err;
	AUTO_FREE char *base = strdup(official ? "http://localhost" : k->target.base);
	if (!official && k->target.unix_path)
		path = strdup(k->target.unix_path);
	AUTO_FREE char *token = !official && k->target.token ? strdup(k->target.token) : NULL;
	if (!base || (k->target.unix_path && !path) || (!official && k->target.token && !token)) {
		tunnel_close(tunnel, call_now_ms() + TUNNEL_LEAVE_MS);
		return -ENOMEM;
	}
	*out = (struct driver_instance){
		.target = {.base = steal(base), .unix_path = steal(path), .token = steal(token)},
		.data = tunnel,
		.ways = tunnel ? tunnel_ways : NULL};
	snprintf(out->network, sizeof out->network, "its own");
	return 0;
}

static void container_stop(
	void *state, int64_t by_ms, const char *name, struct driver_instance *inst)
{
	(void)state;
	(void)name;
	tunnel_close(inst->data, by_ms);
	free(inst->target.base);
	free(inst->target.unix_path);
	free(inst->target.token);
	*inst = (struct driver_instance){0};
}

static int container_in_use(void *state, const char *name, char *detail, size_t size)
{
	(void)state;
	(void)name;
	(void)detail;
	(void)size;
	return 0; /* any number of clients may share it */
}

const struct driver_ops container_driver = {
	.kind = "container",
	.id_names = "^default$",
	.many = false,
	.starts = false,
	.open = container_open,
	.close = container_close,
	.list = container_list,
	.probe = container_probe,
	.create = container_create,
	.destroy = container_destroy,
	.start = container_start,
	.stop = container_stop,
	.in_use = container_in_use,
};
