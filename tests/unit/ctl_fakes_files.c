/* Doubles of the rooms behind git, events, workspace.tar, backups/, mounts/ and code/, for the tests of the control tree. */
#include <errno.h>

#include "backups.h"
#include "code_room.h"
#include "events.h"
#include "git.h"
#include "workspace_tar.h"

const struct ctl_dir ctl_backups_dir = {.help = "backups"};
const struct ctl_dir ctl_code_dir = {.help = "code"};
const struct ctl_dir ctl_mounts_dir = {.help = "mounts"};
const struct ctl_stream_ops workspace_tar_stream;
const struct ctl_upload_ops workspace_tar_upload;
const struct ctl_stream_ops events_stream_ops;
const struct ctl_talk_ops events_talk_ops;
const struct ctl_talk_ops git_talk_ops;

int git_call(
	const struct ctl_ref *ref, struct call *c, const char *line, size_t n, struct buf *answer)
{
	(void)ref;
	(void)c;
	(void)line;
	(void)n;
	(void)answer;
	return -ENOTSUP;
}

int git_show(const struct ctl_ref *ref, struct call *c, struct buf *out)
{
	(void)ref;
	(void)c;
	(void)out;
	return 0;
}

void ctl_code_cancel(struct sandbox *sb)
{
	(void)sb;
}
