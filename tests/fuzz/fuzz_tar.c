/* links: contrib/sandboxd/text.c contrib/sandboxd/tar_chain.c contrib/sandboxd/tar_later.c contrib/sandboxd/tar_look.c contrib/sandboxd/tar_replace.c contrib/common/tree_remove.c contrib/common/buf.c contrib/common/fileop_server.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/*
 * Tar streams that are unpacked: whatever an archive says, nothing appears outside of the directory. Its names alone, too:
 * what a name is cleaned to stays below the top. Makes files, so it runs in a root of its own only (tests/fuzz/run).
 */
#include "../../contrib/sandboxd/tar_read.c"

#include <dirent.h>
#include <ftw.h>
#include <sys/mman.h>

#include "fuzz.h"

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static unsigned count_in(const char *path)
{
	unsigned n = 0;
	DIR *d = opendir(path);
	MUST(d);
	for (struct dirent *e; (e = readdir(d));)
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(d);
	return n;
}

static void try_name(const uint8_t *data, size_t size)
{
	char *name = fuzz_text(data, size), *clean = NULL;
	if (name_clean(name, &clean) == 0) {
		MUST(*clean != '/');
		for (char *save, *part = strtok_r(clean, "/", &save); part;
			 part = strtok_r(NULL, "/", &save))
			MUST(strcmp(part, "..") != 0 && strcmp(part, ".") != 0);
	}
	free(clean);
	free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct server server;
	static const struct fileop_server_config config = {.workspace = "/tmp"};
	struct tar_result result = {0};
	if (access("/etc/passwd", F_OK) == 0) {
		fputs("fuzz_tar: not in a root of its own; tests/fuzz/run makes one\n", stderr);
		_exit(1);
	}
	if (!server.files)
		MUST(fileop_server_new(&config, &server.files) == 0);
	try_name(data, size);
	MUST(mkdir("/tmp/outer", 0755) == 0 && mkdir("/tmp/outer/inner", 0755) == 0);
	MUST(mkdir("/tmp/aside", 0755) == 0);
	int fd = memfd_create("tar", MFD_CLOEXEC);
	MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size && lseek(fd, 0, SEEK_SET) == 0);
	int err = size & 1 ? tar_unpack(&server, fd, "/tmp/outer/inner", &result)
					   : tar_replace(&server, fd, "/tmp/outer/inner", &result);
	MUST(err <= 0);
	MUST(!err == !result.why);
	close(fd);
	tar_result_release(&result);
	MUST(count_in("/tmp/outer") == 1 && count_in("/tmp/aside") == 0 && count_in("/tmp") == 2);
	nftw("/tmp/outer", remove_one, 16, FTW_DEPTH | FTW_PHYS);
	MUST(rmdir("/tmp/aside") == 0 && access("/tmp/outer", F_OK) < 0);
	return 0;
}
