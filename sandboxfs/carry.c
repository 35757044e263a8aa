/*
 * Bringing sandboxd into a sandbox: see carry.h. What a sandbox answers is not trusted: it only decides what is asked of it next.
 */
#include "carry.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "cleanup.h"
#include "shown.h"

enum {
	HASH_SHOWN = 16,         /* digits of the hash in the directory's name */
	PROGRAM_MOST = 64 << 20, /* unpacked */
	PACKED_MOST = 16 << 20,
	ANSWER_MOST = 1000
};

#define PLACE "/tmp/.sandboxfs"
/*
 * /tmp is everybody's: what another user of the sandbox, or a link, has put in our place is neither gone into nor run. In a directory that
 * is our own nobody else can change that afterwards.
 */
#define OWN "own() { test -O \"$1\" && ! test -L \"$1\"; }; "

static const char *const machines[] = {"x86_64", "aarch64"}; /* as uname -m says */
enum { MACHINES = sizeof machines / sizeof *machines };

/* A program as it is put in: packed, and the hash of what it unpacks to. */
struct program {
	const char *machine;
	struct buf packed;
	char hash[2 * SHA256_DIGEST_SIZE + 1];
	int err; /* why there is none */
};

struct programs {
	pthread_mutex_t lock;
	struct program each[MACHINES]; /* lock; one without err does not change any more */
};

/* --- the programs --- */

static int read_file(const char *path, struct buf *out)
{
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	char piece[64 << 10];
	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, piece, sizeof piece);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : buf_error(out);
		if (out->size + (size_t)n > PACKED_MOST)
			return -EFBIG;
		buf_add(out, piece, (size_t)n);
	}
}

/* The hash of what a gzip file holds. */
static int hash_unpacked(const struct buf *packed, char *hash)
{
	z_stream z = {.next_in = (Bytef *)packed->data, .avail_in = (uInt)packed->size};
	struct sha256_ctx sha;
	uint8_t piece[64 << 10], digest[SHA256_DIGEST_SIZE];
	int state = inflateInit2(&z, 16 + MAX_WBITS); /* 16: with gzip's header */
	if (state != Z_OK)
		return -ENOMEM;
	sha256_init(&sha);
	while (state == Z_OK && z.total_out < PROGRAM_MOST) {
		z.next_out = piece;
		z.avail_out = sizeof piece;
		state = inflate(&z, Z_NO_FLUSH);
		sha256_update(&sha, sizeof piece - z.avail_out, piece);
	}
	inflateEnd(&z);
	if (state != Z_STREAM_END)
		return -EBADMSG;
	sha256_digest(&sha, sizeof digest, digest);
	for (size_t i = 0; i < sizeof digest; i++)
		snprintf(hash + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

/* Beside our own program (a build), or where make install puts it. */
static void read_program(struct program *p)
{
	static const char *const places[] = {"helper", "../lib/sandboxfs/helper"};
	AUTO_FREE char *self = realpath("/proc/self/exe", NULL);
	char *slash = self ? strrchr(self, '/') : NULL;
	p->err = self ? -ENOENT : -errno;
	for (size_t i = 0; slash && p->err == -ENOENT && i < sizeof places / sizeof *places; i++) {
		AUTO_BUF path = BUF_INIT;
		*slash = 0;
		buf_printf(&path, "%s/%s/sandboxd-%s.gz", self, places[i], p->machine);
		buf_clear(&p->packed);
		p->err = buf_error(&path) ? -ENOMEM : read_file(path.data, &p->packed);
	}
	if (!p->err)
		p->err = hash_unpacked(&p->packed, p->hash);
}

int programs_new(struct programs **out)
{
	struct programs *p = calloc(1, sizeof *p);
	if (!p)
		return -ENOMEM;
	pthread_mutex_init(&p->lock, NULL);
	for (size_t i = 0; i < MACHINES; i++)
		p->each[i] = (struct program){.machine = machines[i], .err = -EAGAIN};
	*out = p;
	return 0;
}

void programs_free(struct programs *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < MACHINES; i++)
		buf_release(&p->each[i].packed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* The programs and, for each, why there is none: one that is not installed is not looked for again, any other failure may pass. */
static const struct program *programs_read(struct programs *p, int err[MACHINES])
{
	AUTO_UNLOCK(&p->lock);
	for (size_t i = 0; i < MACHINES; i++) {
		if (p->each[i].err && p->each[i].err != -ENOENT)
			read_program(&p->each[i]);
		err[i] = p->each[i].err;
	}
	return p->each;
}

/* --- the sandbox --- */

/* One line for the machine, one for each of our programs that is there. */
static int look(const struct carrier *k, struct call *c, int64_t deadline,
	const struct program *each, const int err[MACHINES], struct buf *answer)
{
	AUTO_BUF script = BUF_INIT;
	int status;
	buf_str(&script, OWN "uname -m");
	for (size_t i = 0; i < MACHINES; i++)
		if (!err[i])
			buf_printf(&script,
				"; d=" PLACE "/%.*s; own " PLACE " && own $d && test -x $d/attach && echo %.*s",
				HASH_SHOWN, each[i].hash, HASH_SHOWN, each[i].hash);
	buf_str(&script, "; true");
	if (buf_error(&script))
		return -ENOMEM;
	int failed = k->run(k->arg, c, deadline, script.data, answer, &status);
	buf_char(answer, 0);
	return failed ? failed : buf_error(answer);
}

/* Which of them that machine runs: 0 and *out, or an error with a fault. */
static int program_for(struct call *c, const char *machine, const struct program *each,
	const int err[MACHINES], const struct program **out)
{
	size_t n = strcspn(machine, " \r\n");
	for (size_t i = 0; i < MACHINES; i++) {
		if (strlen(machines[i]) != n || strncmp(machines[i], machine, n) != 0)
			continue;
		*out = &each[i];
		if (err[i] == -ENOENT)
			return call_fault(c, ENOTSUP, NULL,
				"this sandboxfs was installed without helper/sandboxd-%s.gz, which files and "
				"commands of such a sandbox need; `make helper` builds it",
				machines[i]);
		return err[i] ? call_fault(c, -err[i], NULL, "helper/sandboxd-%s.gz cannot be read: %s",
							machines[i], strerror(-err[i]))
					  : 0;
	}
	AUTO_BUF shown = BUF_INIT;
	shown_words(&shown, machine, n, 40);
	return call_fault(c, ENOTSUP, NULL, "the sandbox is a machine that no helper is built for: %s",
		shown.data ? shown.data : "");
}

/* Unpacks it beside its place, and moves it there when it is what it should be. */
static int install_script(struct buf *out, const struct program *p, const char *packed)
{
	buf_printf(out,
		OWN "umask 077; d=" PLACE "/%.*s; t=$d.$$; test -e '%s' || exit 5; trap 'rm -f %s' EXIT; "
			"mkdir " PLACE " 2>/dev/null || test -d " PLACE " || exit 1; own " PLACE
			" && chmod 700 " PLACE " || exit 8; mkdir -p $d && own $d && chmod 700 $d || exit 1; "
			"gzip -dc <'%s' >\"$t\"; r=$?; "
			"test $r = 0 || { rm -f \"$t\"; command -v gzip >/dev/null || exit 6; exit 2; }; "
			"test \"$(sha256sum <\"$t\" | cut -c1-64)\" = %s || { rm -f \"$t\"; exit 3; }; "
			"chmod 700 \"$t\" && mv -f \"$t\" $d/sandboxd && ln -sf sandboxd $d/attach || exit 4; "
			"test -x $d/attach || exit 7",
		HASH_SHOWN, p->hash, packed, packed, packed, p->hash);
	return buf_error(out);
}

static int install(
	const struct carrier *k, struct call *c, int64_t deadline, const struct program *p)
{
	static const char *const why[] = {"", "no directory can be made in /tmp", "/tmp is full",
		"what arrived is not what was sent, or there is no sha256sum",
		"it cannot be moved to its place in /tmp", "", "there is no gzip",
		"/tmp takes no programs (it is mounted noexec)",
		"/tmp/.sandboxfs is there and another user's, or a link"};
	AUTO_BUF script = BUF_INIT;
	AUTO_BUF said = BUF_INIT;
	AUTO_FREE char *packed = NULL;
	int status = 0;
	int err = k->put(k->arg, c, deadline, p->packed.data, p->packed.size, &packed);
	if (!err)
		err = install_script(&script, p, packed);
	if (!err)
		err = k->run(k->arg, c, deadline, script.data, &said, &status);
	if (err || !status)
		return err;
	/* Two first requests at once may each start a container; one of them is gone to from then on. */
	if (status == 5)
		return call_fault(
			c, EAGAIN, NULL, "the sandbox was replaced while sandboxd was brought in");
	if (status < 0 || (size_t)status >= sizeof why / sizeof *why)
		return call_fault(c, ENOTSUP, NULL,
			"sandboxd cannot be brought into the sandbox: its sh ends with %d", status);
	return call_fault(
		c, ENOTSUP, NULL, "sandboxd cannot be brought into the sandbox: %s", why[status]);
}

int carry_in(const struct carrier *k, struct call *c, int64_t deadline, char **attach)
{
	AUTO_BUF answer = BUF_INIT;
	int missing[MACHINES];
	const struct program *each = programs_read(k->programs, missing), *p = NULL;
	int err = look(k, c, deadline, each, missing, &answer);
	if (err)
		return err;
	if (answer.size > ANSWER_MOST)
		return call_fault(c, EPROTO, NULL, "the sandbox answers something else than was asked");
	err = program_for(c, answer.data, each, missing, &p);
	if (err)
		return err;
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%.*s\n", HASH_SHOWN, p->hash);
	if (!buf_error(&path) && !strstr(answer.data, path.data))
		err = install(k, c, deadline, p);
	if (err)
		return err;
	buf_clear(&path);
	buf_printf(&path, PLACE "/%.*s/attach", HASH_SHOWN, p->hash);
	*attach = buf_steal(&path);
	return *attach ? 0 : -ENOMEM;
}
