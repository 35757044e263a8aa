/*
 * The bridge driver: sandboxes of Cloudflare behind the SDK's bridge Worker, at https://HOST. A sandbox is a container somewhere, reached by a
 * tunnel through a terminal of its own (tunnel.h): the Worker's routes carry no file system, and cannot end a command.
 *
 * Owns the list of a user's sandboxes of that server (names.h), since the bridge has none and starts a paid container for any name it is asked
 * about; and what is said to the bridge itself, below /v1. Sources: the SDK's bridge, its OpenAPI document.
 */
#include <errno.h>
#include <json-c/json.h>
#include <nettle/sha2.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "bridge_events.h"
#include "bridge_impl.h"
#include "cleanup.h"
#include "driver.h"
#include "json_make.h"
#include "json_read.h"
#include "shown.h"
#include "token.h"
#include "tunnel.h"

enum {
	SCRIPT_MS = 60000,
	NAME_MOST = 63, /* of the bridge's 128: it is a label of a host name in preview URLs */
};

/* A sandbox from start to stop. */
struct link {
	struct bridge *bridge;
	char *name;
	int lock;
	struct tunnel *tunnel;
};

/* --- what is said to the bridge --- */

/* The words of a refusal, fit for a terminal: of JSON its `error`, else the text itself. new */
static char *refusal(const struct buf *body)
{
	AUTO_BUF text = BUF_INIT;
	AUTO_BUF words = BUF_INIT;
	buf_add(&text, body->data, body->size < REPLY_MOST ? body->size : REPLY_MOST);
	if (buf_error(&text))
		return NULL;
	struct json_object *o = json_little(text.data), *error;
	const char *said = text.data;
	if (json_object_object_get_ex(o, "error", &error) &&
		json_object_is_type(error, json_type_string))
		said = json_object_get_string(error);
	shown_words(&words, said, strlen(said), SHOWN_MOST);
	json_object_put(o);
	return buf_steal(&words);
}

int bridge_refused(
	const struct bridge *b, struct call *c, const char *what, int status, const struct buf *body)
{
	AUTO_FREE char *said = refusal(body);
	const char *words = said ? said : "";
	switch (status) {
	case 401:
		return call_fault(c, EACCES, "unauthorized",
			"%s: %s refuses the token; give the right one: SANDBOX_API_KEY, or -o token_file=",
			what, b->target.base);
	case 404:
		return call_fault(c, ENOTSUP, NULL, "%s: %s has no such route: is a sandbox bridge there?",
			what, b->target.base);
	case 429:
	case 502:
	case 503:
	case 504:
		return call_fault(
			c, EAGAIN, NULL, "%s: %s: not now (%d): %s", what, b->target.base, status, words);
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return call_fault(c, EPROTO, NULL,
			"%s: %s sends elsewhere (%d), where the token is not sent; mount the right address",
			what, b->target.base, status);
	default:
		return call_fault(c, status == 403 ? EACCES : EIO, NULL, "%s: %s answers %d: %s", what,
			b->target.base, status, words);
	}
}

/* 0 with any status, or an error with a fault. */
static int exchange(
	const struct bridge *b, struct call *c, const struct http_request *r, struct http_reply *reply)
{
	int err = http_exchange(b->http, c, r, reply);
	if (!err || err == -EINTR || err == -ENOMEM)
		return err;
	if (err == -ETIMEDOUT)
		return call_fault(c, ETIMEDOUT, NULL, "%s: no answer within %lld s", b->target.base,
			(long long)(r->timeout_ms + 999) / 1000);
	if (err == -EHOSTUNREACH)
		return call_fault(c, EHOSTUNREACH, NULL,
			"no server takes connections at %s; start it, or check the address", b->target.base);
	const char *what = err == -EPROTO  ? "no HTTP, or its certificate is not to be trusted"
					   : err == -EFBIG ? "an answer without end"
					   : err == -ECONNRESET
						   ? "it breaks the connection off; is this the right address?"
						   : strerror(-err);
	return call_fault(c, err == -EFBIG ? EPROTO : -err, NULL, "%s: %s", b->target.base, what);
}

int bridge_ask(const struct bridge *b, struct call *c, const char *method, const char *name,
	const char *route, const char *type, const void *body, size_t size, int64_t timeout_ms,
	struct http_reply *reply)
{
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "/v1/sandbox/%s%s", name, route);
	if (buf_error(&path))
		return -ENOMEM;
	struct http_request r = {.target = &b->target,
		.method = method,
		.path = path.data,
		.type = type,
		.body = body,
		.size = size,
		.timeout_ms = timeout_ms,
		.max_reply = REPLY_MOST};
	return exchange(b, c, &r, reply);
}

/* --- what the carrier asks for --- */

static int64_t time_left(int64_t deadline)
{
	int64_t left = deadline - call_now_ms();
	return left < 0 ? 0 : left < REQUEST_MS ? left : REQUEST_MS;
}

static int link_run(
	void *arg, struct call *c, int64_t deadline, const char *script, struct buf *out, int *status)
{
	const struct link *l = arg;
	struct http_reply reply = {.body = BUF_INIT};
	struct bridge_answer a = {.out = out};
	struct json_object *body = json_object_new_object(), *argv = json_object_new_array();
	const char *const words[] = {"sh", "-c", script};
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		json_append(argv, json_object_new_string(words[i]));
	json_add(body, "argv", argv);
	json_add(body, "timeout_ms", json_object_new_int(SCRIPT_MS));
	const char *text = json_text_of(body, NULL);
	int err = text ? bridge_ask(l->bridge, c, "POST", l->name, "/exec", "application/json", text,
						 strlen(text), time_left(deadline), &reply)
				   : -ENOMEM;
	json_object_put(body);
	if (!err && reply.status != 200)
		err = bridge_refused(l->bridge, c, l->name, reply.status, &reply.body);
	buf_char(&reply.body, 0);
	if (!err)
		err = buf_error(&reply.body) ? -ENOMEM : bridge_events_take(&a, reply.body.data);
	/* A body that ends without either was cut: nobody knows what was done. The scripts may be run again. */
	if (!err && a.error)
		err = call_fault(c, EAGAIN, "exec_transport_error", "%s: %s", l->name, a.error);
	else if (!err && !a.ended)
		err = call_fault(c, EAGAIN, NULL, "%s: the bridge cut its answer off", l->name);
	*status = a.status;
	free(a.error);
	buf_release(&reply.body);
	return err;
}

/* The bridge writes below /workspace alone; the name is gone as soon as the file has been unpacked. Tried again it goes over what was left. */
static int link_put(
	void *arg, struct call *c, int64_t deadline, const void *p, size_t size, char **path)
{
	const struct link *l = arg;
	struct http_reply reply = {.body = BUF_INIT};
	AUTO_BUF name = BUF_INIT;
	AUTO_BUF route = BUF_INIT;
	buf_printf(&name, "/workspace/.sandboxfs-%016llx.gz", (unsigned long long)l->bridge->random);
	buf_printf(&route, "/file%s", name.data ? name.data : "");
	if (buf_error(&name) || buf_error(&route))
		return -ENOMEM;
	int err = bridge_ask(l->bridge, c, "PUT", l->name, route.data, "application/octet-stream", p,
		size, time_left(deadline), &reply);
	if (!err && reply.status != 200)
		err = bridge_refused(l->bridge, c, l->name, reply.status, &reply.body);
	buf_release(&reply.body);
	if (!err && !(*path = buf_steal(&name)))
		err = -ENOMEM;
	return err;
}

/* --- the terminal --- */

static char *link_terminal(void *arg, const char *session, const char *program)
{
	const struct link *l = arg;
	AUTO_BUF path = BUF_INIT;
	buf_printf(
		&path, "/v1/sandbox/%s/pty?session=%s&shell=%s&cols=80&rows=24", l->name, session, program);
	return buf_steal(&path);
}

static void link_leave(void *arg, struct call *c, const char *session)
{
	const struct link *l = arg;
	struct http_reply reply = {.body = BUF_INIT};
	AUTO_BUF route = BUF_INIT;
	buf_printf(&route, "/session/%s", session);
	if (!buf_error(&route))
		(void)bridge_ask(
			l->bridge, c, "DELETE", l->name, route.data, NULL, NULL, 0, TUNNEL_LEAVE_MS, &reply);
	buf_release(&reply.body); /* one that stays ends with the container */
}

/* --- open and close --- */

static void bridge_close(void *state)
{
	struct bridge *b = state;
	if (!b)
		return;
	if (b->http)
		http_free(b->http);
	run_dir_close(&b->run);
	programs_free(b->programs);
	names_close(&b->names);
	free(b->target.base);
	token_free(b->target.token);
	bridge_forget_buckets(b, NULL);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

static bool name_valid(const char *name)
{
	size_t n = strlen(name);
	return n >= 1 && n <= NAME_MOST && strspn(name, "abcdefghijklmnopqrstuvwxyz234567") == n;
}

bool bridge_is_address(const char *address)
{
	if (strncmp(address, "https://", 8) == 0)
		return true;
	size_t n = strlen(address);
	while (n && address[n - 1] == '/')
		n--;
	return strncmp(address, "http://", 7) == 0 && n > 10 && memcmp(address + n - 3, "/v1", 3) == 0;
}

/* https://HOST[:PORT][/v1][/]; http for this host alone, where nobody listens in. */
static int set_address(struct bridge *b, struct call *c, const char *address)
{
	static const char pattern[] =
		"^(https://(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)|"
		"http://(127\\.0\\.0\\.1|localhost|\\[::1\\]))(:[0-9]{1,5})?(/v1)?/*$";
	regex_t re;
	if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB))
		return -ENOMEM;
	int bad = regexec(&re, address, 0, NULL, 0);
	regfree(&re);
	if (bad)
		return call_fault(c, EINVAL, NULL,
			"%s: a bridge is named https://HOST[:PORT]; http://, which others can read the token "
			"from, only on 127.0.0.1",
			address);
	b->target.base = strdup(address);
	if (!b->target.base)
		return -ENOMEM;
	char *path = strchr(strstr(b->target.base, "://") + 3, '/');
	if (path)
		*path = 0;
	/* One server, one list of sandboxes and one lock for each, however it is written. */
	for (char *p = b->target.base; *p; p++)
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
	size_t n = strlen(b->target.base);
	if (strncmp(b->target.base, "https:", 6) == 0 && strcmp(b->target.base + n - 4, ":443") == 0)
		b->target.base[n - 4] = 0;
	return 0;
}

static int open_names(struct bridge *b, struct call *c, const struct options *o)
{
	struct sha256_ctx sha;
	uint8_t digest[8];
	AUTO_BUF below = BUF_INIT;
	sha256_init(&sha);
	sha256_update(&sha, strlen(b->target.base), (const uint8_t *)b->target.base);
	sha256_digest(&sha, sizeof digest, digest);
	/* Beside the sandboxes of local:, whose names begin with no dot. */
	buf_str(&below, "/.bridges/");
	for (size_t i = 0; i < sizeof digest; i++)
		buf_printf(&below, "%02x", digest[i]);
	if (buf_error(&below))
		return -ENOMEM;
	b->names = (struct names){.dir = -1,
		.path = names_data_home(below.data),
		.server = b->target.base,
		.another = "",
		.mountpoint = o->mountpoint,
		.valid = name_valid,
		.grammar = "a sandbox of a bridge is named by letters a-z and digits 2-7, at most 63"};
	return b->names.path ? names_open(&b->names, c) : -ENOMEM;
}

/* Asks for nothing that would start a container. */
static int check_token(const struct bridge *b, struct call *c)
{
	struct http_reply reply = {.body = BUF_INIT};
	struct http_request r = {.target = &b->target,
		.method = "GET",
		.path = "/v1/pool/stats",
		.timeout_ms = SCRIPT_MS,
		.max_reply = REPLY_MOST};
	int err = exchange(b, c, &r, &reply);
	if (!err && (reply.status == 401 || reply.status == 404 || reply.status / 100 == 3))
		err = bridge_refused(b, c, "mount", reply.status, &reply.body);
	/* Another status may pass. */
	buf_release(&reply.body);
	return err;
}

static int bridge_open(const struct options *o, struct call *c, void **state)
{
	struct bridge *b = calloc(1, sizeof *b);
	if (!b)
		return -ENOMEM;
	b->options = o;
	pthread_mutex_init(&b->lock, NULL);
	b->names.dir = b->run.lock = -1;
	if (getrandom(&b->random, sizeof b->random, 0) != (ssize_t)sizeof b->random) {
		bridge_close(b);
		return -EIO;
	}
	int err = set_address(b, c, o->server);
	if (!err)
		err = token_read(o, c, true, &b->target.token);
	if (!err)
		err = http_new(&b->http);
	if (!err)
		err = open_names(b, c, o);
	if (!err)
		err = run_dir_open(&b->run, c);
	if (!err)
		err = programs_new(&b->programs);
	if (!err)
		err = check_token(b, c);
	if (err) {
		bridge_close(b);
		return err;
	}
	*state = b;
	return 0;
}

/* --- names --- */

static const struct names *names_of(const struct bridge *b)
{
	return &b->names;
}

static int bridge_list(void *state, bool (*cb)(const char *name, void *arg), void *arg)
{
	return names_each(names_of(state), cb, arg);
}

static int bridge_probe(void *state, const char *name)
{
	AUTO_FD int dir = -1;
	return names_find(names_of(state), NULL, name, &dir) == -ENOENT ? -ENOENT : 0;
}

static int bridge_create(void *state, struct call *c, const char *name)
{
	return names_create(names_of(state), c, name);
}

static int bridge_in_use(void *state, const char *name, char *detail, size_t size)
{
	return names_in_use(names_of(state), name, detail, size);
}

static int bridge_destroy(void *state, struct call *c, const char *name)
{
	struct bridge *b = state;
	struct http_reply reply = {.body = BUF_INIT};
	AUTO_FD int dir = -1;
	AUTO_FD int lock = -1;
	int err = names_find(&b->names, c, name, &dir);
	if (!err)
		err = names_lock(&b->names, c, name, dir, &lock);
	if (!err)
		err = bridge_ask(b, c, "DELETE", name, "", NULL, NULL, 0, REQUEST_MS, &reply);
	if (!err && reply.status != 204 && reply.status != 200)
		err = bridge_refused(b, c, name, reply.status, &reply.body);
	if (err == -EAGAIN) { /* programs take that word for something else */
		c->fault.err = EHOSTDOWN;
		err = -EHOSTDOWN;
	}
	buf_release(&reply.body);
	return err ? err : names_remove(&b->names, c, name, dir);
}

/* --- start and stop --- */

static void link_free(struct link *l, int64_t by_ms)
{
	tunnel_close(l->tunnel, by_ms);
	if (l->lock >= 0)
		close(l->lock);
	free(l->name);
	free(l);
}

static int link_open(struct link *l, struct call *c)
{
	AUTO_FD int dir = -1;
	int err = names_find(&l->bridge->names, c, l->name, &dir);
	if (!err)
		err = names_lock(&l->bridge->names, c, l->name, dir, &l->lock);
	if (err)
		return err;
	struct tunnel_way way = {.target = &l->bridge->target,
		.terminal = link_terminal,
		.leave = link_leave,
		.carrier = {link_run, link_put, l, l->bridge->programs},
		.start_ms = l->bridge->options->start_ms,
		.arg = l};
	return tunnel_open(c, &way, &l->bridge->run, &l->tunnel);
}

static unsigned link_ways(void *data)
{
	const struct link *l = data;
	return tunnel_wires(l->tunnel);
}

static int bridge_start(void *state, struct call *c, const char *name, void (*died)(void *arg),
	void *arg, struct driver_instance *out)
{
	struct link *l = calloc(1, sizeof *l);
	(void)died; /* nobody tells of a container's end: requests find out */
	(void)arg;
	if (!l)
		return -ENOMEM;
	l->bridge = state;
	l->lock = -1;
	l->name = strdup(name);
	int err = l->name ? link_open(l, c) : -ENOMEM;
	AUTO_FREE char *base = err ? NULL : strdup("http://localhost");
	AUTO_FREE char *path = err ? NULL : strdup(tunnel_socket(l->tunnel));
	if (!err && (!base || !path))
		err = -ENOMEM;
	if (err) {
		link_free(l, call_now_ms() + TUNNEL_LEAVE_MS);
		return err;
	}
	*out = (struct driver_instance){
		.target = {.base = steal(base), .unix_path = steal(path)}, .data = l, .ways = link_ways};
	snprintf(out->network, sizeof out->network, "internet");
	return 0;
}

static void bridge_stop(void *state, int64_t by_ms, const char *name, struct driver_instance *inst)
{
	bridge_forget_buckets(state, name);
	if (inst->data)
		link_free(inst->data, by_ms);
	free(inst->target.base);
	free(inst->target.unix_path);
	*inst = (struct driver_instance){0};
}

const struct driver_ops bridge_driver = {
	.kind = "bridge",
	.id_names = "^[a-z2-7]{1,63}$",
	.many = true,
	.starts = true,
	.sleeps = true,
	.open = bridge_open,
	.close = bridge_close,
	.list = bridge_list,
	.probe = bridge_probe,
	.create = bridge_create,
	.destroy = bridge_destroy,
	.start = bridge_start,
	.stop = bridge_stop,
	.in_use = bridge_in_use,
	.expose = bridge_expose,
	.unexpose = bridge_unexpose,
	.bucket_mount = bridge_bucket_mount,
	.bucket_unmount = bridge_bucket_unmount,
	.bucket_each = bridge_bucket_each,
};
