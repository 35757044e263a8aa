/* links: contrib/common/buf.c sandboxfs/call.c sandboxfs/bucket.c ctl/words.c ctl/mount_line.c */
/* Lines of mounts/new, mountBucket's objects and key files: what they ask for, and that no message holds a key. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cleanup.h"
#include "mount_line.h"

static struct call the_call;
static const char *(*environment)[2]; /* name, value; ended by NULL */

static const char *get(const char *name)
{
	for (size_t i = 0; environment && environment[i][0]; i++)
		if (strcmp(environment[i][0], name) == 0)
			return environment[i][1];
	return NULL;
}

static int setup(void **state)
{
	(void)state;
	environment = NULL;
	call_init(&the_call, 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	call_destroy(&the_call);
	return 0;
}

static int parse(const char *line, struct mount_request *q)
{
	size_t n = strlen(line);
	char *exact = malloc(n ? n : 1);
	memcpy(exact, line, n);
	fault_clear(&the_call.fault);
	int err = mount_request_parse(&the_call, exact, n, q);
	free(exact);
	return err;
}

static void test_words(void **state)
{
	struct mount_request q;
	(void)state;
	assert_int_equal(parse("B.b-1 //mnt//a/ ro endpoint=https://h:9000/ prefix=/p/q/ "
						   "credentials=/home/u/.key s3fs=multipart_size=20 s3fs=nomultipart",
						 &q),
		0);
	assert_string_equal(q.bucket.bucket, "B.b-1");
	assert_string_equal(q.bucket.dir, "/mnt/a");
	assert_string_equal(q.bucket.name, "mnt-a");
	assert_string_equal(q.bucket.endpoint, "https://h:9000");
	assert_string_equal(q.bucket.prefix, "/p/q");
	assert_string_equal(q.key_file, "/home/u/.key");
	assert_string_equal(q.bucket.options[0], "multipart_size=20");
	assert_string_equal(q.bucket.options[1], "nomultipart");
	assert_null(q.bucket.options[2]);
	assert_true(q.bucket.read_only);
	mount_request_release(&q);
	assert_int_equal(parse("b '/with blank/ä' prefix=/", &q), 0);
	assert_string_equal(q.bucket.dir, "/with blank/ä");
	assert_null(q.bucket.prefix);
	mount_request_release(&q);
}

static void test_refused(void **state)
{
	static const char *const lines[] = {"b", "b data", "b /", "b //", "b /a/../c", "b /a/.",
		"-b /d", "b/c /d", "b:c /d", "b /d rw", "b /d RO", "b /d endpoint=h",
		"b /d endpoint=http://", "b /d endpoint=http://u:p@h", "b /d endpoint=http://h,x",
		"b /d prefix=p", "b /d prefix=/a//b", "b /d provider=x", "b /d credentials=key",
		"b /d s3fs=", "b /d s3fs=a,b", "b /d s3fs=A", "b /d s3fs=passwd_file=/x",
		"b /d s3fs=url=http://x", "b /d s3fs=suid", "b /usr", "b /usr/local/x", "b /etc",
		"b /proc/1", "b /dev/x", "b /lib64", "b /.sandboxd/x", "b /workspace", "b /tmp", "b /home/",
		"b /new", "b /help", "b /.x", "b /x~", "b /x.swp", "b /x.swo", "b '/a\tb'", "b '/open"};
	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		struct mount_request q;
		int err = parse(lines[i], &q);
		if (err != -EINVAL || !the_call.fault.message)
			fail_msg("%s: %d", lines[i], err);
		mount_request_release(&q);
	}
}

static void test_allowed_places(void **state)
{
	static const char *const dirs[] = {
		"/data", "/workspace/data", "/tmp/x", "/home/u", "/var/lib/x", "/users", "/developer"};
	(void)state;
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		struct mount_request q;
		char line[64];
		snprintf(line, sizeof line, "b %s", dirs[i]);
		if (parse(line, &q))
			fail_msg("%s", line);
		assert_string_equal(q.bucket.dir, dirs[i]);
		mount_request_release(&q);
	}
}

static void test_object(void **state)
{
	struct mount_request q;
	(void)state;
	assert_int_equal(
		parse("{\"bucket\":\"b\",\"mountPath\":\"/d\",\"options\":{\"endpoint\":\"http://h\","
			  "\"credentials\":{\"accessKeyId\":\"K\",\"secretAccessKey\":\"S3CRET\"},"
			  "\"readOnly\":true,\"prefix\":\"/p\",\"s3fsOptions\":[\"nomultipart\"],"
			  "\"credentialProxy\":false,\"provider\":null}}",
			&q),
		0);
	assert_string_equal(q.bucket.key_id, "K");
	assert_string_equal(q.bucket.secret, "S3CRET");
	assert_string_equal(q.bucket.options[0], "nomultipart");
	assert_true(q.bucket.read_only);
	/* The one from the object is taken; the environment is not asked. */
	assert_int_equal(mount_request_complete(&the_call, &q, get), 0);
	assert_true(q.bucket.path_style);
	struct bucket shown;
	assert_int_equal(bucket_copy(&shown, &q.bucket), 0);
	assert_null(shown.key_id);
	assert_null(shown.secret);
	assert_string_equal(shown.options[0], "nomultipart");
	bucket_release(&shown);
	mount_request_release(&q);
	assert_int_equal(
		parse("{\"bucket\":\"b\",\"mountPath\":\"/d\",\"credentials\":\"/k\"}", &q), 0);
	assert_string_equal(q.key_file, "/k");
	mount_request_release(&q);
}

static void test_object_refused(void **state)
{
	static const struct {
		const char *text;
		int err;
	} cases[] = {
		{"{}", EINVAL},
		{"{\"bucket\":\"b\"}", EINVAL},
		{"{\"bucket\":1,\"mountPath\":\"/d\"}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"options\":[]}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"x\":1}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"options\":{\"bucket\":\"c\"}}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"readOnly\":\"yes\"}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"s3fsOptions\":\"x\"}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"s3fsOptions\":[1]}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\\u0000\"}", EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"credentials\":{\"accessKeyId\":\"S3CRET\"}}",
			EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/"
		 "d\",\"credentials\":{\"secretAccessKey\":\"S3CRET\\n\"}}",
			EINVAL},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"localBucket\":true}", ENOTSUP},
		{"{\"bucket\":\"b\",\"mountPath\":\"/d\",\"credentialProxy\":true}", ENOTSUP},
		{"{\"bucket\":\"b\",", EINVAL},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mount_request q;
		int err = parse(cases[i].text, &q);
		if (err != -cases[i].err || !the_call.fault.message ||
			strstr(the_call.fault.message, "S3CRET"))
			fail_msg("%s: %d", cases[i].text, err);
	}
}

static void test_environment(void **state)
{
	static const char *amazon[][2] = {{"AWS_ACCESS_KEY_ID", "K"}, {"AWS_SECRET_ACCESS_KEY", "S"},
		{"AWS_SESSION_TOKEN", "T"}, {"AWS_ENDPOINT_URL", "http://e/"}, {NULL, NULL}};
	static const char *both[][2] = {{"AWS_ACCESS_KEY_ID", "K"}, {"AWS_SECRET_ACCESS_KEY", "S"},
		{"AWS_SESSION_TOKEN", "T"}, {"R2_ACCESS_KEY_ID", "RK"}, {"R2_SECRET_ACCESS_KEY", "RS"},
		{"AWS_ENDPOINT_URL_S3", "http://s3"}, {"AWS_ENDPOINT_URL", "http://e"}, {NULL, NULL}};
	struct mount_request q;
	(void)state;
	assert_int_equal(parse("b /d", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), -EINVAL); /* where? */
	mount_request_release(&q);
	assert_int_equal(parse("b /d endpoint=http://h", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), -EACCES); /* no key */
	mount_request_release(&q);
	assert_int_equal(parse("b /d endpoint=http://h s3fs=public_bucket=1", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), 0);
	assert_null(q.bucket.key_id);
	mount_request_release(&q);
	environment = amazon;
	assert_int_equal(parse("b /d", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), 0);
	assert_string_equal(q.bucket.endpoint, "http://e");
	assert_string_equal(q.bucket.key_id, "K");
	assert_string_equal(q.bucket.token, "T");
	mount_request_release(&q);
	environment = both;
	assert_int_equal(parse("b /d", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), 0);
	assert_string_equal(q.bucket.endpoint, "http://s3");
	assert_string_equal(q.bucket.key_id, "RK");
	assert_null(q.bucket.token);
	mount_request_release(&q);
}

static void test_providers(void **state)
{
	static const char *keys[][2] = {
		{"AWS_ACCESS_KEY_ID", "K"}, {"AWS_SECRET_ACCESS_KEY", "S"}, {NULL, NULL}};
	struct mount_request q;
	(void)state;
	environment = keys;
	assert_int_equal(parse("b /d provider=s3", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), 0);
	assert_string_equal(q.bucket.endpoint, "https://s3.amazonaws.com");
	assert_false(q.bucket.path_style);
	mount_request_release(&q);
	assert_int_equal(parse("b /d provider=s3 s3fs=use_path_request_style", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), 0);
	assert_true(q.bucket.path_style);
	mount_request_release(&q);
	assert_int_equal(parse("b /d provider=r2", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), -EINVAL);
	mount_request_release(&q);
	assert_int_equal(parse("b /d endpoint=https://1.r2.cloudflarestorage.com", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), 0);
	assert_string_equal(q.bucket.options[0], "nomixupload");
	mount_request_release(&q);
}

static void key(const char *text, const char *id, const char *secret)
{
	struct bucket b = {.bucket = strdup("mine")};
	int err = mount_key_parse(&the_call, text, strlen(text), &b);
	if (!id) {
		assert_int_equal(err, -EINVAL);
		assert_non_null(the_call.fault.message);
		assert_null(strstr(the_call.fault.message, "S9C"));
		fault_clear(&the_call.fault);
	} else {
		assert_int_equal(err, 0);
		assert_string_equal(b.key_id, id);
		assert_string_equal(b.secret, secret);
	}
	bucket_release(&b);
}

static void test_keys(void **state)
{
	(void)state;
	key("K:S9C\n", "K", "S9C");
	key("# k\n\n  K:S9C=/+==  \r\n", "K", "S9C=/+==");
	key("other:O:S9C1\nmine:K:S9C2\nD:S9C3\n", "K", "S9C2");
	key("D:S9C3\nmine:K:S9C2\n", "K", "S9C2");
	key("other:O:S9C1\n", NULL, NULL);
	key("AWS_ACCESS_KEY_ID=K\nAWS_SECRET_ACCESS_KEY=S9C:C\n", "K", "S9C:C");
	key("export R2_ACCESS_KEY_ID='K'\nexport R2_SECRET_ACCESS_KEY=\"S9C\"\n", "K", "S9C");
	key("[work]\naws_access_key_id = W\naws_secret_access_key = S9CW\nregion = x\n[default]\n"
		"aws_access_key_id = K\naws_secret_access_key = S9C\nendpoint_url = http://x:1\n[z]\n"
		"aws_access_key_id = Z\n",
		"K", "S9C");
	key("", NULL, NULL);
	key("S9C\n", NULL, NULL);
	key(":S9C\n", NULL, NULL);
	key("K:\n", NULL, NULL);
	key("AWS_ACCESS_KEY_ID=S9CK\n", NULL, NULL);
	struct bucket b = {.bucket = "mine"};
	assert_int_equal(mount_key_parse(&the_call, "K:S\0", 4, &b), -EINVAL);
}

static void test_key_file(void **state)
{
	char path[] = "/tmp/mount-line.XXXXXX";
	char line[128];
	struct mount_request q;
	int fd = mkstemp(path);
	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "K:S9C\n", 6), 6);
	snprintf(line, sizeof line, "b /d endpoint=http://h credentials=%s", path);
	for (int mode = 0600; mode <= 0644; mode += 044) {
		assert_int_equal(fchmod(fd, (mode_t)mode), 0);
		assert_int_equal(parse(line, &q), 0);
		assert_int_equal(mount_request_complete(&the_call, &q, get), mode == 0600 ? 0 : -EACCES);
		mount_request_release(&q);
	}
	unlink(path);
	close(fd);
	assert_int_equal(parse(line, &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), -ENOENT);
	mount_request_release(&q);
	fault_clear(&the_call.fault);
	assert_int_equal(parse("b /d endpoint=http://h credentials=/dev/null", &q), 0);
	assert_int_equal(mount_request_complete(&the_call, &q, get), -EINVAL);
	mount_request_release(&q);
}

static void test_meeting(void **state)
{
	(void)state;
	assert_true(bucket_dirs_meet("/a", "/a"));
	assert_true(bucket_dirs_meet("/a", "/a/b"));
	assert_true(bucket_dirs_meet("/a/b/c", "/a"));
	assert_false(bucket_dirs_meet("/a", "/ab"));
	assert_false(bucket_dirs_meet("/a/b", "/a/c"));
}

/* What s3fs says on its way, and the line that tells why it ended. */
static void test_said(void **state)
{
	(void)state;
	static const struct {
		const char *text, *line;
		int err;
	} all[] = {
		{"2026-11-23T17:00:21Z [INF] a.cpp:F(1): loaded\n2026 [CRT] b.cpp:F(2): bucket not found\n",
			"bucket not found", ENOENT},
		{"fuse: unknown option `x'\np:F(434): the rest of a line it was written over\n",
			"fuse: unknown option `x'", EINVAL},
		{"s3fs: MOUNTPOINT directory /d is not empty.\n",
			"s3fs: MOUNTPOINT directory /d is not empty.", ENOTEMPTY},
		{"one\ntwo\x1b[2J\n", "two?[2J", EIO},
		{"[INF] nothing else\n", "", EIO},
		{"", "", EIO},
	};
	struct bucket b = {.bucket = "b", .endpoint = "http://s"};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		AUTO_BUF line = BUF_INIT;
		AUTO_FREE char *text = strdup(all[i].text);
		bucket_said(text, &line);
		assert_string_equal(line.size ? line.data : "", all[i].line);
		assert_int_equal(
			bucket_failed(&the_call, &b, line.size ? line.data : "", -EIO), -all[i].err);
		fault_clear(&the_call.fault);
	}
	assert_int_equal(bucket_failed(&the_call, &b, "nothing", -EACCES), -EACCES);
	assert_int_equal(bucket_failed(&the_call, &b, "nothing", -ENOTCONN), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_words, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_allowed_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_object, setup, teardown),
		cmocka_unit_test_setup_teardown(test_object_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_environment, setup, teardown),
		cmocka_unit_test_setup_teardown(test_providers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_key_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_meeting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_said, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
