/*
 * Lines of mounts/new, mountBucket's object, key files (mount_line.h). No state.
 */
#include "mount_line.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "ctl.h"

#define USE                                                                                        \
	"use BUCKET /DIR [ro] [endpoint=URL] [prefix=/P] [provider=r2|s3|gcs] [credentials=HOSTFILE] " \
	"[s3fs=OPT]..."

enum { BUCKET_MAX = 255, KEY_FILE_MAX = 64 << 10 };

void mount_request_release(struct mount_request *q)
{
	bucket_release(&q->bucket);
	free(q->provider);
	free(q->key_file);
	*q = (struct mount_request){0};
}

static int set(char **to, const char *text)
{
	free(*to);
	*to = strdup(text);
	return *to ? 0 : -ENOMEM;
}

static bool plain(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

/* --- the parts --- */

static int set_bucket(struct call *c, struct mount_request *q, const char *text)
{
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	if (!n || text[n] || n > BUCKET_MAX || !isalnum((unsigned char)*text))
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"not a bucket: letters, digits, . _ and -; prefix=/P names a part of one");
	return set(&q->bucket.bucket, text);
}

/* Absolute, without empty components and those that climb: new in *out. */
static int clean_dir(struct call *c, const char *text, char **out)
{
	AUTO_BUF path = BUF_INIT;
	if (*text != '/' || !plain(text) || strlen(text) >= PATH_MAX)
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"the directory is an absolute path in the sandbox: BUCKET /DIR");
	for (const char *at = text; *at;) {
		size_t n = strcspn(at, "/");
		if (n > NAME_MAX || (n == 1 && at[0] == '.') || (n == 2 && memcmp(at, "..", 2) == 0))
			return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
				"%s: no . or .. and no name over 255 bytes", text);
		if (n) {
			buf_char(&path, '/');
			buf_add(&path, at, n);
		}
		at += n + (at[n] == '/');
	}
	if (!path.size)
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"/ is the sandbox itself; choose a directory such as /data");
	*out = buf_steal(&path);
	return *out ? 0 : -ENOMEM;
}

/* The system's directories, and those that are more than a place for others. */
static bool dir_taken(const char *dir)
{
	static const char *const whole[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64",
		"/libx32", "/etc", "/proc", "/sys", "/dev", "/.sandboxd", NULL};
	static const char *const itself[] = {
		"/workspace", "/tmp", "/var", "/var/tmp", "/run", "/root", "/home", NULL};
	for (const char *const *d = whole; *d; d++)
		if (bucket_dirs_meet(*d, dir))
			return true;
	for (const char *const *d = itself; *d; d++)
		if (strcmp(*d, dir) == 0)
			return true;
	return false;
}

static int set_dir(struct call *c, struct mount_request *q, const char *text)
{
	struct bucket *b = &q->bucket;
	free(steal(b->dir));
	int err = clean_dir(c, text, &b->dir);
	if (err)
		return err;
	if (dir_taken(b->dir))
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"%s is the system's; choose a directory such as /data or /workspace/data", b->dir);
	err = set(&b->name, b->dir + 1);
	if (err)
		return err;
	for (char *at = b->name; *at; at++)
		if (*at == '/')
			*at = '-';
	/* The last two are taken. */
	if (strlen(b->name) > NAME_MAX || ctl_is_editors_name(b->name) || strcmp(b->name, "new") == 0 ||
		strcmp(b->name, "help") == 0)
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"%s: mounts/ could not call it %s; choose another directory", b->dir, b->name);
	return 0;
}

static int set_endpoint(struct call *c, struct mount_request *q, const char *text)
{
	const char *host = strncmp(text, "https://", 8) == 0  ? text + 8
					   : strncmp(text, "http://", 7) == 0 ? text + 7
														  : "";
	size_t n = strlen(text);
	for (const char *at = text; *at; at++)
		if ((unsigned char)*at <= ' ' || *at == 0x7f || *at == ',')
			host = "";
	if (!*host || *host == '/' || strchr(text, '@') || strchr(text, '?') || strchr(text, '#'))
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"endpoint= is the URL of the store: http:// or https://, host and port");
	while (n && text[n - 1] == '/')
		n--;
	free(q->bucket.endpoint);
	q->bucket.endpoint = strndup(text, n);
	return q->bucket.endpoint ? 0 : -ENOMEM;
}

static int set_prefix(struct call *c, struct mount_request *q, const char *text)
{
	AUTO_FREE char *copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	size_t n = strlen(copy);
	while (n && copy[n - 1] == '/')
		copy[--n] = 0;
	if (*text != '/' || !plain(text) || strstr(text, "//"))
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"prefix= begins with / and names a part of the bucket: prefix=/logs/2024");
	free(q->bucket.prefix);
	q->bucket.prefix = n ? steal(copy) : NULL;
	return 0;
}

static int set_provider(struct call *c, struct mount_request *q, const char *text)
{
	if (strcmp(text, "r2") != 0 && strcmp(text, "s3") != 0 && strcmp(text, "gcs") != 0)
		return call_fault(
			c, EINVAL, "INVALID_MOUNT_CONFIG", "provider=%s: use r2, s3 or gcs", text);
	return set(&q->provider, text);
}

static int set_key_file(struct call *c, struct mount_request *q, const char *text)
{
	if (*text != '/' || !plain(text))
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"credentials= is the absolute path of a file on this machine");
	return set(&q->key_file, text);
}

static bool is_word(const char *text, size_t n, const char *word)
{
	return strlen(word) == n && memcmp(word, text, n) == 0;
}

/* Options that would undo what this program decides, or show the key. */
static bool option_taken(const char *text, size_t n)
{
	static const char *const taken[] = {"passwd_file", "ahbe_conf", "url", "host", "servicepath",
		"bucket", "tmpdir", "use_cache", "del_cache", "logfile", "fsname", "subtype", "allow_other",
		"allow_root", "uid", "gid", "suid", "dev", "iam_role", "ecs", "ibm_iam_auth", "credlib",
		"credlib_opts", "curldbg", "dbglevel", "ro", "rw", "profile", "use_session_token",
		"nonempty", "auto_unmount", NULL};
	for (const char *const *t = taken; *t; t++)
		if (is_word(text, n, *t))
			return true;
	return false;
}

static int add_option(struct call *c, struct mount_request *q, const char *text)
{
	struct bucket *b = &q->bucket;
	size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_"), count = 0;
	if (!n || (text[n] && text[n] != '=') || strchr(text, ',') || !plain(text))
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"s3fs=OPT is one option of s3fs(1): NAME or NAME=VALUE, without a comma");
	if (option_taken(text, n))
		return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
			"s3fs=%.*s: this option is not yours to set here; " USE, (int)n, text);
	if (is_word(text, n, "use_path_request_style"))
		b->path_style = true;
	if (is_word(text, n, "public_bucket"))
		q->public = true;
	while (b->options && b->options[count])
		count++;
	char **more = realloc(b->options, (count + 2) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	b->options = more;
	more[count] = strdup(text);
	more[count + 1] = NULL;
	return more[count] ? 0 : -ENOMEM;
}

/* --- a line --- */

static int parse_words(struct call *c, int argc, char **argv, struct mount_request *q)
{
	static const struct {
		const char *name;
		int (*set)(struct call *c, struct mount_request *q, const char *text);
	} options[] = {{"endpoint=", set_endpoint}, {"prefix=", set_prefix},
		{"provider=", set_provider}, {"credentials=", set_key_file}, {"s3fs=", add_option}};
	if (argc < 2)
		return call_fault(c, EINVAL, NULL, "too few words; " USE);
	int err = set_bucket(c, q, argv[0]);
	if (!err)
		err = set_dir(c, q, argv[1]);
	for (int i = 2; !err && i < argc; i++) {
		size_t k = 0, known = sizeof options / sizeof *options;
		while (k < known && strncmp(argv[i], options[k].name, strlen(options[k].name)) != 0)
			k++;
		if (k < known)
			err = options[k].set(c, q, argv[i] + strlen(options[k].name));
		else if (strcmp(argv[i], "ro") == 0)
			q->bucket.read_only = true;
		else
			err = call_fault(c, EINVAL, NULL, "not understood: %s; " USE, argv[i]);
	}
	return err;
}

/* --- an object --- */

static const char *text_of(struct json_object *v)
{
	const char *s = json_object_get_string(v);
	return json_object_is_type(v, json_type_string) &&
				   strlen(s) == (size_t)json_object_get_string_len(v)
			   ? s
			   : NULL;
}

static int json_key(struct call *c, struct json_object *o, struct bucket *b)
{
	static const char *const keys[] = {"accessKeyId", "secretAccessKey", "sessionToken", NULL};
	char **const to[] = {&b->key_id, &b->secret, &b->token};
	struct json_object *v;
	int err = ctl_check_keys(c, o, keys);
	for (size_t i = 0; !err && keys[i]; i++) {
		if (!json_object_object_get_ex(o, keys[i], &v) || !v)
			continue;
		const char *text = text_of(v);
		if (!text || !*text || !plain(text))
			return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
				"\"credentials\": \"%s\" is not a line of text", keys[i]);
		err = set(to[i], text);
	}
	if (!err && (!b->key_id || !b->secret))
		err = call_fault(c, EINVAL, "MISSING_CREDENTIALS",
			"\"credentials\" has \"accessKeyId\" and \"secretAccessKey\"");
	return err;
}

static int json_options(struct call *c, struct mount_request *q, struct json_object *list)
{
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	int err = json_object_is_type(list, json_type_array)
				  ? 0
				  : call_fault(c, EINVAL, NULL, "\"s3fsOptions\" is not a list of texts");
	for (size_t i = 0; !err && i < n; i++) {
		const char *text = text_of(json_object_array_get_idx(list, i));
		err = text ? add_option(c, q, text)
				   : call_fault(c, EINVAL, NULL, "\"s3fsOptions\" is not a list of texts");
	}
	return err;
}

/* One option of mountBucket's. */
static int json_option(
	struct call *c, struct mount_request *q, const char *key, struct json_object *v)
{
	static const struct {
		const char *name;
		int (*set)(struct call *c, struct mount_request *q, const char *text);
	} texts[] = {{"bucket", set_bucket}, {"mountPath", set_dir}, {"endpoint", set_endpoint},
		{"prefix", set_prefix}, {"provider", set_provider}, {"credentials", set_key_file}};
	if (strcmp(key, "credentials") == 0 && json_object_is_type(v, json_type_object))
		return json_key(c, v, &q->bucket);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		if (strcmp(key, texts[i].name) != 0)
			continue;
		const char *text = text_of(v);
		return text ? texts[i].set(c, q, text)
					: call_fault(c, EINVAL, NULL, "\"%s\" is not a text", key);
	}
	if (strcmp(key, "s3fsOptions") == 0)
		return json_options(c, q, v);
	/* What is left is true or false. */
	if (!json_object_is_type(v, json_type_boolean))
		return call_fault(c, EINVAL, NULL, "\"%s\" is not true or false", key);
	if (strcmp(key, "readOnly") == 0)
		q->bucket.read_only = json_object_get_boolean(v);
	else if (json_object_get_boolean(v))
		return call_fault(c, ENOTSUP, NULL,
			"\"%s\" is a bucket of Cloudflare's or wrangler's own; here a bucket has an "
			"\"endpoint\"",
			key);
	return 0;
}

static int parse_object(struct call *c, struct json_object *o, struct mount_request *q)
{
	static const char *const keys[] = {"bucket", "mountPath", "options", "endpoint", "prefix",
		"provider", "credentials", "readOnly", "s3fsOptions", "localBucket", "credentialProxy",
		NULL};
	struct json_object *options = NULL;
	int err = ctl_check_keys(c, o, keys);
	if (err)
		return err;
	json_object_object_foreach(o, key, value)
	{
		if (strcmp(key, "options") == 0)
			options = value;
		else if (value && (err = json_option(c, q, key, value)) < 0)
			return err;
	}
	if (options && !json_object_is_type(options, json_type_object))
		return call_fault(c, EINVAL, NULL, "\"options\" is not an object");
	if (options) {
		err = ctl_check_keys(c, options, keys + 3);
		if (err)
			return err;
		json_object_object_foreach(options, name, setting)
		{
			if (setting && (err = json_option(c, q, name, setting)) < 0)
				return err;
		}
	}
	if (!q->bucket.bucket || !q->bucket.dir)
		return call_fault(
			c, EINVAL, NULL, "\"%s\" is missing", q->bucket.bucket ? "mountPath" : "bucket");
	return 0;
}

int mount_request_parse(struct call *c, const char *line, size_t n, struct mount_request *out)
{
	int err;
	*out = (struct mount_request){0};
	if (ctl_is_json(line, n)) {
		struct json_object *o = NULL;
		err = ctl_parse_json(c, line, n, &o);
		if (!err)
			err = parse_object(c, o, out);
		json_object_put(o);
	} else {
		AUTO_FREE char **argv = NULL;
		int argc;
		err = ctl_split(c, line, n, &argc, &argv);
		if (!err)
			err = parse_words(c, argc, argv, out);
	}
	if (err)
		mount_request_release(out);
	return err;
}

/* --- keys --- */

/* A word without the blanks and quotes around it. */
static char *bare(char *text)
{
	size_t n;
	text += strspn(text, " \t");
	n = strlen(text);
	while (n && strchr(" \t\r", text[n - 1]))
		text[--n] = 0;
	if (n >= 2 && (*text == '"' || *text == '\'') && text[n - 1] == *text) {
		text[n - 1] = 0;
		text++;
	}
	return text;
}

/* NAME = VALUE; of other names nothing is taken. */
static int key_setting(char *line, struct bucket *b)
{
	static const char *const names[] = {
		"aws_access_key_id", "aws_secret_access_key", "aws_session_token"};
	static const char *const r2[] = {"r2_access_key_id", "r2_secret_access_key", ""};
	char **const to[] = {&b->key_id, &b->secret, &b->token};
	char *equal = strchr(line, '=');
	*equal = 0;
	char *name = bare(line), *value = bare(equal + 1);
	if (strncmp(name, "export ", 7) == 0)
		name = bare(name + 7);
	for (size_t i = 0; i < 3; i++)
		if (strcasecmp(name, names[i]) == 0 || strcasecmp(name, r2[i]) == 0)
			return *value ? set(to[i], value) : 0;
	return 0;
}

/* KEY:SECRET, or BUCKET:KEY:SECRET, which wins for its bucket and is none for others. exact: such a line was seen before. */
static int key_words(char *line, struct bucket *b, bool *exact)
{
	char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
	if (!first)
		return -EINVAL;
	char *id = line, *secret = first + 1;
	*first = 0;
	if (second) {
		*second = 0;
		if (strcmp(line, b->bucket) != 0)
			return 0;
		id = first + 1;
		secret = second + 1;
	} else if (*exact) {
		return 0;
	}
	if (!*id || !*secret)
		return -EINVAL;
	*exact = second != NULL;
	int err = set(&b->key_id, id);
	return err ? err : set(&b->secret, secret);
}

static int key_lines(char *text, struct bucket *b)
{
	bool exact = false, section = true;
	char *save = NULL;
	int err = 0;
	for (char *line = strtok_r(text, "\n", &save); line && !err;
		 line = strtok_r(NULL, "\n", &save)) {
		line = bare(line);
		if (*line == '[') /* of several accounts of aws(1) the first, or the one called default */
			section = strcmp(line, "[default]") == 0 || !b->key_id;
		else if (*line && *line != '#' && *line != ';' && section)
			err = line[strcspn(line, "=:")] == '=' ? key_setting(line, b)
												   : key_words(line, b, &exact);
	}
	return err;
}

int mount_key_parse(struct call *c, const char *text, size_t n, struct bucket *b)
{
	char *copy = memchr(text, 0, n) ? NULL : strndup(text, n);
	int err = copy ? key_lines(copy, b) : memchr(text, 0, n) ? -EINVAL : -ENOMEM;
	if (copy)
		explicit_bzero(copy, n);
	free(copy);
	if (err == -EINVAL || (!err && (!b->key_id || !b->secret)))
		return call_fault(c, EINVAL, "MISSING_CREDENTIALS",
			"there is no key for %s in the credentials; write KEY:SECRET, BUCKET:KEY:SECRET, or "
			"AWS_ACCESS_KEY_ID=KEY and AWS_SECRET_ACCESS_KEY=SECRET lines",
			b->bucket);
	return err;
}

static int read_key_file(struct call *c, struct mount_request *q)
{
	const char *path = q->key_file;
	struct stat st;
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return call_fault(c, errno, NULL, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > KEY_FILE_MAX)
		return call_fault(c, EINVAL, NULL, "%s: not a file with a key", path);
	if ((st.st_uid != geteuid() && st.st_uid != 0) || st.st_mode & 077)
		return call_fault(c, EACCES, NULL,
			"%s: others could read or change this file; chmod 600 it, and let it be yours", path);
	size_t size = 0;
	char *text = malloc(KEY_FILE_MAX);
	if (!text)
		return -ENOMEM;
	ssize_t got = 1;
	while (got > 0 && size < KEY_FILE_MAX) {
		got = read(fd, text + size, KEY_FILE_MAX - size);
		if (got > 0)
			size += (size_t)got;
	}
	int err = got < 0 ? -errno : mount_key_parse(c, text, size, &q->bucket);
	explicit_bzero(text, size);
	free(text);
	return err;
}

static int environment_key(
	struct call *c, struct mount_request *q, const char *(*get)(const char *name))
{
	static const char *const names[][3] = {
		{"R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", NULL},
		{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"},
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *id = get(names[i][0]), *secret = get(names[i][1]);
		const char *token = names[i][2] ? get(names[i][2]) : NULL;
		if (!id || !secret || !*id || !*secret)
			continue;
		int err = set(&q->bucket.key_id, id);
		if (!err)
			err = set(&q->bucket.secret, secret);
		if (!err && token && *token)
			err = set(&q->bucket.token, token);
		return err;
	}
	return call_fault(c, EACCES, "MISSING_CREDENTIALS",
		"no key for %s: credentials=HOSTFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in "
		"the "
		"environment of sandboxfs; s3fs=public_bucket=1 where none is needed",
		q->bucket.bucket);
}

static int complete_endpoint(
	struct call *c, struct mount_request *q, const char *(*get)(const char *name))
{
	static const char *const names[] = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *url = q->provider ? NULL : get(names[i]);
		if (url && *url)
			return set_endpoint(c, q, url);
	}
	if (q->provider && strcmp(q->provider, "s3") == 0)
		return set_endpoint(c, q, "https://s3.amazonaws.com");
	if (q->provider && strcmp(q->provider, "gcs") == 0)
		return set_endpoint(c, q, "https://storage.googleapis.com");
	return call_fault(c, EINVAL, "INVALID_MOUNT_CONFIG",
		"%s: where is it? endpoint=URL of the store, or AWS_ENDPOINT_URL in the environment of "
		"sandboxfs",
		q->bucket.bucket);
}

/* What differs between stores, unless it was said. */
static int complete_provider(struct call *c, struct mount_request *q)
{
	const char *url = q->bucket.endpoint;
	bool amazon = strstr(url, ".amazonaws.com") != NULL;
	bool r2 =
		strstr(url, ".r2.cloudflarestorage.com") || (q->provider && !strcmp(q->provider, "r2"));
	/* The host may be anything elsewhere; at Amazon's, buckets are names of hosts. */
	q->bucket.path_style = q->bucket.path_style || !amazon;
	/* It wants parts of one size, and has one region. */
	int err = r2 ? add_option(c, q, "nomixupload") : 0;
	return err || !r2 ? err : add_option(c, q, "endpoint=auto");
}

int mount_request_complete(
	struct call *c, struct mount_request *q, const char *(*get)(const char *name))
{
	int err = q->bucket.endpoint ? 0 : complete_endpoint(c, q, get);
	if (!err)
		err = complete_provider(c, q);
	if (err || q->bucket.key_id || q->public)
		return err;
	return q->key_file ? read_key_file(c, q) : environment_key(c, q, get);
}
