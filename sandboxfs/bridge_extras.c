/*
 * What a bridge does for a sandbox besides carrying it: URLs for its ports that others can open, and buckets. Part of the bridge
 * driver (bridge_impl.h). Sources: the SDK's bridge (tunnel, mount, unmount), contrib/worker (expose).
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "bridge_impl.h"
#include "cleanup.h"
#include "json_make.h"
#include "json_read.h"
#include "shown.h"

enum { URL_MOST = 2048 };

/* Where Cloudflare's quick tunnels have their names: any bridge makes such, no domain is needed. */
static const char tunnels[] = "trycloudflare.com";

static void add(struct json_object *o, const char *name, const char *value)
{
	if (value)
		json_add(o, name, json_object_new_string(value));
}

/* Sends a JSON object (which it puts; of POST, others have none); 0 with any status. */
static int send_json(const struct bridge *b, struct call *c, const char *method, const char *name,
	const char *route, struct json_object *body, struct http_reply *got)
{
	const char *text = json_text_of(body, NULL);
	int err = strcmp(method, "POST") == 0 && !text
				  ? -ENOMEM
				  : bridge_ask(b, c, method, name, route, text ? "application/json" : NULL, text,
						text ? strlen(text) : 0, REQUEST_MS, got);
	json_object_put(body);
	return err;
}

/* Takes what a send_json got, which failed if err: releases it. *reply new, a JSON answer, may be NULL. */
static int take_json(const struct bridge *b, struct call *c, const char *what, int err,
	struct http_reply *got, struct json_object **reply)
{
	if (!err && got->status != 200 && got->status != 204)
		err = bridge_refused(b, c, what, got->status, &got->body);
	/* The sandbox runs: what is refused now is refused. */
	if (err == -EAGAIN) {
		c->fault.err = EIO;
		err = -EIO;
	}
	buf_char(&got->body, 0);
	if (!err && buf_error(&got->body))
		err = -ENOMEM;
	if (!err && reply)
		*reply = json_little(got->body.data);
	buf_release(&got->body);
	return err;
}

/* Both. */
static int ask_json(const struct bridge *b, struct call *c, const char *method, const char *name,
	const char *route, struct json_object *body, const char *what, struct json_object **reply)
{
	struct http_reply got = {.body = BUF_INIT};
	int err = send_json(b, c, method, name, route, body, &got);
	return take_json(b, c, what, err, &got, reply);
}

/* --- ports --- */

static int port_route(const struct bridge *b, uint16_t port, struct buf *route)
{
	bool tunnel = strcmp(b->options->preview_host, tunnels) == 0;
	buf_printf(route, "/%s/%u", tunnel ? "tunnel" : "expose", port);
	return buf_error(route);
}

/* It is shown in terminals and given to other programs. */
static int take_url(struct call *c, uint16_t port, const char *text, char **url)
{
	size_t n = 0;
	while (text[n] > ' ' && text[n] <= '~')
		n++;
	bool web = strncmp(text, "https://", 8) == 0 || strncmp(text, "http://", 7) == 0;
	if (text[n] || !web || n > URL_MOST)
		return call_fault(c, EPROTO, NULL, "ports/%u: what the bridge answers is no URL", port);
	*url = strdup(text);
	return *url ? 0 : -ENOMEM;
}

int bridge_expose(void *state, struct call *c, const char *name, uint16_t port, const char *title,
	const char *token, char **url)
{
	const struct bridge *b = state;
	struct json_object *reply = NULL, *value;
	AUTO_BUF route = BUF_INIT;
	if (!b->options->preview_host)
		return -ENOTSUP;
	int err = port_route(b, port, &route);
	if (err)
		return err;
	struct json_object *body = json_object_new_object();
	if (strcmp(b->options->preview_host, tunnels) != 0) {
		add(body, "hostname", b->options->preview_host);
		add(body, "name", title);
		add(body, "token", token);
	}
	err = ask_json(b, c, "POST", name, route.data, body, "ports", &reply);
	if (err == -ENOTSUP) {
		fault_clear(&c->fault);
		err = call_fault(c, ENOTSUP, NULL,
			"ports/%u: this bridge makes no preview URLs; deploy contrib/worker, or mount with -o "
			"preview-host=%s",
			port, tunnels);
	}
	if (!err && json_object_object_get_ex(reply, "url", &value) &&
		json_object_is_type(value, json_type_string)) {
		err = take_url(c, port, json_object_get_string(value), url);
	} else if (!err) {
		err = call_fault(c, EPROTO, NULL, "ports/%u: the bridge's answer has no URL", port);
	}
	json_object_put(reply);
	return err;
}

int bridge_unexpose(void *state, struct call *c, const char *name, uint16_t port)
{
	const struct bridge *b = state;
	AUTO_BUF route = BUF_INIT;
	if (!b->options->preview_host)
		return -ENOTSUP;
	int err = port_route(b, port, &route);
	return err ? err : ask_json(b, c, "DELETE", name, route.data, NULL, "ports", NULL);
}

/* --- buckets --- */

struct bridge_bucket {
	struct bridge_bucket *next;
	char *sandbox;
	struct bucket bucket; /* without its key */
	bool coming;          /* it is being asked for: whoever asks takes it out, should that fail */
	bool forgotten;       /* and in any case: its sandbox was let go of meanwhile */
};

static void bucket_free(struct bridge_bucket *k)
{
	bucket_release(&k->bucket);
	free(k->sandbox);
	free(k);
}

/* Lock held: where it is, or where it belongs. */
static struct bridge_bucket **bucket_place(struct bridge *b, const char *sandbox, const char *name)
{
	struct bridge_bucket **at = &b->buckets;
	while (*at && (strcmp((*at)->sandbox, sandbox) != 0 || strcmp((*at)->bucket.name, name) < 0))
		at = &(*at)->next;
	return at;
}

static bool bucket_here(const struct bridge_bucket *k, const char *sandbox, const char *name)
{
	return k && strcmp(k->sandbox, sandbox) == 0 && strcmp(k->bucket.name, name) == 0;
}

static struct json_object *bucket_body(const struct bucket *k)
{
	struct json_object *body = json_object_new_object(), *options = json_object_new_object();
	struct json_object *more = json_object_new_array();
	add(body, "bucket", k->bucket);
	add(body, "mountPath", k->dir);
	add(options, "endpoint", k->endpoint);
	add(options, "prefix", k->prefix);
	if (k->read_only)
		json_add(options, "readOnly", json_object_new_boolean(true));
	if (k->key_id && k->secret) {
		struct json_object *key = json_object_new_object();
		add(key, "accessKeyId", k->key_id);
		add(key, "secretAccessKey", k->secret);
		json_add(options, "credentials", key);
	}
	if (k->path_style)
		json_append(more, json_object_new_string("use_path_request_style"));
	for (char **o = k->options; o && *o; o++)
		json_append(more, json_object_new_string(*o));
	if (!more || json_object_array_length(more))
		json_add(options, "s3fsOptions", more);
	else
		json_object_put(more);
	json_add(body, "options", options);
	return body;
}

/*
 * What the Worker says of a mount or an unmount that failed: the name of an error of the SDK's, its sentence, and in that what s3fs or
 * fusermount said. It may be of some lines.
 */
static int bucket_refused(struct call *c, const struct bucket *k, const struct buf *body)
{
	static const char invalid[] = "InvalidMountConfigError: ";
	AUTO_BUF text = BUF_INIT;
	AUTO_BUF words = BUF_INIT;
	struct json_object *said = NULL;
	buf_add(&text, body->data, body->size);
	if (buf_error(&text))
		return -ENOMEM;
	struct json_object *o = json_little(text.data);
	bool known =
		json_object_object_get_ex(o, "error", &said) && json_object_is_type(said, json_type_string);
	buf_clear(&text);
	buf_printf(&text, "%s", known ? json_object_get_string(said) : "");
	json_object_put(o);
	if (!known || buf_error(&text))
		return known ? -ENOMEM : 0;
	const char *at = strstr(text.data, invalid);
	if (at) {
		at += strlen(invalid);
		shown_words(&words, at, strlen(at), SHOWN_MOST);
		return call_fault(c, strstr(at, "already in use") ? EBUSY : EINVAL, NULL, "%s: %s", k->dir,
			words.size ? words.data : "");
	}
	if (strstr(text.data, "MissingCredentialsError: "))
		return call_fault(c, EACCES, NULL, "%s: the bridge wants a key; credentials=", k->bucket);
	if (strstr(text.data, "BucketUnmountError: ") && strstr(text.data, "busy"))
		return call_fault(c, EBUSY, NULL, "%s is in use in the sandbox", k->dir);
	if (!strstr(text.data, "S3FSMountError: "))
		return 0;
	bucket_said(text.data, &words);
	return bucket_failed(c, k, words.size ? words.data : "nothing", -EIO);
}

/* POST ROUTE with this body (which it puts) about a bucket. */
static int ask_bucket(const struct bridge *b, struct call *c, const char *name, const char *route,
	struct json_object *body, const struct bucket *k)
{
	struct http_reply got = {.body = BUF_INIT};
	int err = send_json(b, c, "POST", name, route, body, &got);
	if (!err && got.status == 502)
		err = bucket_refused(c, k, &got.body);
	return take_json(b, c, "mounts", err, &got, NULL);
}

static int unmount_bucket(
	const struct bridge *b, struct call *c, const char *name, const struct bucket *k)
{
	struct json_object *body = json_object_new_object();
	add(body, "mountPath", k->dir);
	return ask_bucket(b, c, name, "/unmount", body, k);
}

static int mount_bucket(
	const struct bridge *b, struct call *c, const char *name, const struct bucket *k)
{
	int err = ask_bucket(b, c, name, "/mount", bucket_body(k), k);
	if (err != -EBUSY)
		return err;
	/*
	 * In the sandbox it has outlived the mount that it was made by; none of this one's is there. The SDK's failing mount may have
	 * unmounted what it met.
	 */
	fault_clear(&c->fault);
	err = unmount_bucket(b, c, name, k);
	if (err == -EINVAL) {
		fault_clear(&c->fault);
		err = 0;
	}
	return err ? err : ask_bucket(b, c, name, "/mount", bucket_body(k), k);
}

/* Lock held: takes it out of the list. */
static void bucket_drop(struct bridge *b, struct bridge_bucket *k)
{
	struct bridge_bucket **at = &b->buckets;
	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	bucket_free(k);
}

/* Its place in the list, from before it is asked for: of two at once with one name or directory the second is refused. */
static int bucket_reserve(struct bridge *b, struct call *c, const char *name,
	const struct bucket *k, struct bridge_bucket **out)
{
	struct bridge_bucket *fresh = calloc(1, sizeof *fresh);
	int err = !fresh || !(fresh->sandbox = strdup(name)) ? -ENOMEM : bucket_copy(&fresh->bucket, k);
	if (!err) {
		AUTO_UNLOCK(&b->lock);
		struct bridge_bucket **at = bucket_place(b, name, k->name);
		if (bucket_here(*at, name, k->name))
			err = -EEXIST;
		for (struct bridge_bucket *o = b->buckets; o && !err; o = o->next)
			if (strcmp(o->sandbox, name) == 0 && bucket_dirs_meet(o->bucket.dir, k->dir))
				err = call_fault(c, EBUSY, NULL, "another bucket is at, above or below %s", k->dir);
		if (!err) {
			fresh->coming = true;
			fresh->next = *at;
			*at = *out = fresh;
		}
	}
	if (err && fresh)
		bucket_free(fresh);
	return err;
}

int bridge_bucket_mount(void *state, struct call *c, const char *name, const struct bucket *k)
{
	struct bridge *b = state;
	struct bridge_bucket *fresh = NULL;
	if (k->token)
		return call_fault(c, ENOTSUP, NULL,
			"the bridge takes no key for a while (sessionToken); give one that lasts");
	int err = bucket_reserve(b, c, name, k, &fresh);
	if (err)
		return err;
	err = mount_bucket(b, c, name, k);
	AUTO_UNLOCK(&b->lock);
	fresh->coming = false;
	if (err || fresh->forgotten)
		bucket_drop(b, fresh);
	return err;
}

int bridge_bucket_unmount(void *state, struct call *c, const char *name, const char *bucket)
{
	struct bridge *b = state;
	struct bucket one = {0};
	pthread_mutex_lock(&b->lock);
	struct bridge_bucket *k = *bucket_place(b, name, bucket);
	bool there = bucket_here(k, name, bucket) && !k->coming;
	int err = there ? bucket_copy(&one, &k->bucket) : -ENOENT;
	pthread_mutex_unlock(&b->lock);
	if (!err)
		err = unmount_bucket(b, c, name, &one);
	bucket_release(&one);
	if (err)
		return err;
	AUTO_UNLOCK(&b->lock);
	k = *bucket_place(b, name, bucket);
	if (bucket_here(k, name, bucket) && !k->coming)
		bucket_drop(b, k);
	return 0;
}

void bridge_bucket_each(void *state, const char *name,
	bool (*cb)(const struct bucket *b, const char *dead, void *arg), void *arg)
{
	struct bridge *b = state;
	AUTO_UNLOCK(&b->lock);
	for (struct bridge_bucket *k = b->buckets; k; k = k->next)
		if (strcmp(k->sandbox, name) == 0 && !k->coming && !cb(&k->bucket, NULL, arg))
			return;
}

void bridge_forget_buckets(struct bridge *b, const char *name)
{
	AUTO_UNLOCK(&b->lock);
	for (struct bridge_bucket **at = &b->buckets; *at;) {
		struct bridge_bucket *k = *at;
		bool other = name && strcmp(k->sandbox, name) != 0;
		if (!other)
			k->forgotten = true;
		if (other || k->coming) {
			at = &k->next;
			continue;
		}
		*at = k->next;
		bucket_free(k);
	}
}
