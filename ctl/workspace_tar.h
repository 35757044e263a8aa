/*
 * workspace.tar: what its row needs. See workspace_tar.c.
 */
#ifndef CTL_WORKSPACE_TAR_H
#define CTL_WORKSPACE_TAR_H

#include "ctl.h"

extern const struct ctl_stream_ops workspace_tar_stream;
extern const struct ctl_upload_ops workspace_tar_upload;

#endif
