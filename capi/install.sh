#!/bin/sh
# Installs the built library under a prefix: sh capi/install.sh PREFIX [BUILT]
# BUILT is the folder that cargo built it in, target/release of this repository if left out.
set -eu
capi=$(cd "$(dirname "$0")" && pwd)
prefix=$1
built=${2:-$capi/../target/release}

number() {
  sed -n "s/^#define MEDCAM_VERSION_$1 //p" "$capi/include/medcam.h"
}
major=$(number MAJOR)
minor=$(number MINOR)
version=$major.$minor.$(number PATCH)
abi=$major
[ "$major" != 0 ] || abi=0.$minor

mkdir -p "$prefix/include" "$prefix/lib/pkgconfig"
prefix=$(cd "$prefix" && pwd)
cp "$capi/include/medcam.h" "$capi/include/dlpack.h" "$prefix/include/"
mkdir -p "$prefix/share/licenses/medcam"
cp "$capi/../LICENSE" "$capi/include/LICENSE.dlpack" "$prefix/share/licenses/medcam/"
cp "$built/libmedcam.a" "$prefix/lib/"
cp "$built/libmedcam.so" "$prefix/lib/libmedcam.so.$version"
ln -sf "libmedcam.so.$version" "$prefix/lib/libmedcam.so.$abi"
ln -sf "libmedcam.so.$abi" "$prefix/lib/libmedcam.so"
cat > "$prefix/lib/pkgconfig/medcam.pc" <<EOF
prefix=$prefix
Name: medcam
Description: Attention maps over DLPack tensors
Version: $version
Cflags: -I\${prefix}/include
Libs: -L\${prefix}/lib -lmedcam
Libs.private: -lpthread -ldl -lm -lgcc_s
EOF
